"""The model card of a tuned person, and what is said at the end of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...checkpoints.model_card import card_head, opening_code
from ...errors import TrainingError
from ...files import write_bytes
from ..trainable import LORA_FILE
from .batches import PROMPTS
from .config import PersonConfig
from .likeness import Likeness
from .parts import PersonParts
from .step import IDENTITY_FILE, WORDS_FILE

_TEXT = """\
# One person

Tuned on {photos} photos of one person for `{base}`, by `idgen train person`. Share it, and the images made with it,
only with the person's consent. `{identity}` holds an embedding of the face, from which the face can be recognised.

With idgen:

```python
{idgen}
```

With diffusers alone:

```python
{stock}
```

| | |
| --- | --- |
"""


def write_card(config: PersonConfig, parts: PersonParts, likeness: Likeness) -> None:
    """Write `README.md` of the folder."""
    card = card_head("identity", "text-to-image") + _TEXT.format(
        photos=len(parts.photos.train),
        base=config.base,
        identity=IDENTITY_FILE,
        idgen="\n".join(_idgen(config, parts)),
        stock="\n".join(_stock(config, parts)),
    )
    rows = {
        "learnt": _learnt(config),
        "from": config.id_adapter or "nothing",
        "updates": f"{likeness.update} of {config.loop.train_batch_size} samples",
        "prior pictures": str(config.prior_pictures),
        "losses": ", ".join(parts.step.losses.terms),
        "similarity": " ".join(likeness.lines()),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    write_bytes(config.output_dir / "README.md", f"{card}{table}\n".encode(), TrainingError)


def closing(config: PersonConfig) -> list[str]:
    """Lines for the end of a run."""
    folder = config.output_dir
    base = [] if config.base == "tiny" else ["--base", config.base]
    word = f"<id> {config.class_word}" if config.is_rare_word else "<id>"
    command = ["idgen", "generate", PROMPTS[0].format(word), *base, "--id-adapter", str(folder)]
    return [
        f"'{folder}' holds {_learnt(config)} for {config.base}; README.md there shows how to open it.",
        *Likeness.load(folder).lines(),
        f"Next: {shlex.join(command)}",
    ]


def _learnt(config: PersonConfig) -> str:
    words = "the tuned adapter" if config.id_adapter else "pseudo-words"
    lora = f"a {'DoRA' if config.dora else 'LoRA'} of rank {config.lora_rank}"
    return {"both": f"{lora} and {words}", "lora": lora, "words": words}[config.learn]


def _idgen(config: PersonConfig, parts: PersonParts) -> list[str]:
    place = config.output_dir.name
    lora = [f'pipe.load_lora_weights("{place}")'] if _has_lora(config) else []
    return [
        "import idgen",
        *opening_code(config.base),
        f'pipe.load_id_adapter("{place}")',
        *lora,
        f'person = idgen.Identity.load("{place}/{IDENTITY_FILE}")',
        f'image = pipe("{PROMPTS[0].format(parts.person)}", id_embeds=person).images[0]',
    ]


def _stock(config: PersonConfig, parts: PersonParts) -> list[str]:
    """Code without idgen: what stock diffusers can load of the folder."""
    place, who = config.output_dir.name, config.class_word
    words = []
    if config.is_rare_word:
        who = f"{config.rare_word} {who}"
    elif len(parts.step.base.text_encoders) == 1 and parts.step.words():
        who = parts.step.token
        words = [f'pipe.load_textual_inversion("{place}", weight_name="{WORDS_FILE}")']
    elif parts.step.words():
        who = parts.step.token
        words = [
            f'words = safetensors.torch.load_file("{place}/{WORDS_FILE}")',
            f'pipe.load_textual_inversion(words["clip_l"], "{who}", pipe.tokenizer, pipe.text_encoder)',
            f'pipe.load_textual_inversion(words["clip_g"], "{who}", pipe.tokenizer_2, pipe.text_encoder_2)',
        ]
    lora = [f'pipe.load_lora_weights("{place}")'] if _has_lora(config) else []
    note = ["# the tuned identity tokens need idgen"] if config.id_adapter and config.learn != "lora" else []
    return [*opening_code(config.base), *words, *lora, *note, f'image = pipe("{PROMPTS[0].format(who)}").images[0]']


def _has_lora(config: PersonConfig) -> bool:
    return Path(config.output_dir / LORA_FILE).is_file()
