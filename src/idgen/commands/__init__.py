"""The commands of `idgen`. A command is a file with a function `run`, and a row in `COMMANDS`."""

COMMANDS = {
    "generate": "Generate images of a person.",
    "swap": "Replace faces of a picture by those of other people.",
    "restore": "Restore the face of a damaged photo.",
    "enroll": "Enroll a person from photos into an identity file.",
    "prepare": "Turn photos of people into shards for training.",
    "calibrate": "Measure the similarities of a face encoder on photos of many people.",
    "train": "Train an adapter on shards.",
    "evaluate": "Measure an adapter on people and prompts, or compare two reports.",
    "demo": "Serve a page in the browser that generates images.",
    "convert": "Convert an adapter to another format.",
    "inspect": "Show the marks of an image: settings, watermark, Content Credentials.",
    "key": "Make a secret key that images and adapters are traced with.",
    "fingerprint": "Make a copy of an adapter that can be traced to its recipient.",
    "trace": "Tell for which recipient a copy of an adapter was made.",
    "index": "Index pictures that were drawn.",
    "origin": "Tell which picture of an index an image was made from.",
    "blocklist": "Edit or check a list of people who are refused.",
    "forget": "Make an adapter that no longer draws given people.",
    "protect": "Change a photo so that face encoders do not recognise the person.",
    "info": "Show what an adapter or an identity file holds.",
}
"""Commands and what they do, in the order of `idgen --help`."""
