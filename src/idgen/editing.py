"""What `idgen swap` and `idgen restore` do: an edited picture, what was measured, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .commands.shared import open_identity_net, open_pipeline
from .errors import ProvenanceError
from .evaluation.scores import beside_strangers
from .evaluation.similarity import cosine_similarity
from .faces import Choice, FaceAnalyzer, load_photo, register_encoder
from .files import write_bytes
from .identity import Identity
from .pipelines.face_crop import EditedPicture, chosen_faces, identity_of
from .terminal import say

if TYPE_CHECKING:
    from .commands.edit_options import EditOptions
    from .commands.restore import RestoreOptions
    from .commands.swap import SwapOptions


def swap_faces(options: SwapOptions, faces: Sequence[Choice | None]) -> Path:
    """Replace faces of a picture, and print how similar the new ones are; returns the file."""
    people, pipeline = _open(options)
    photo, shown = load_photo(options.picture), people
    if options.anonymise:
        loaded = next(iter(pipeline._loaded_adapters.values()))
        choices: Any = list(faces) or None
        people = [identity_of(face) for face in chosen_faces(loaded, photo, choices)]
        shown = [one.anonymise(seed=options.seed + i, keep=one.attributes) for i, one in enumerate(people)]
    person: Any = shown if len(shown) > 1 else shown[0]
    edited = pipeline.swap(
        options.picture,
        id_embeds=person,
        face=list(faces) or None,
        strength=options.strength,
        match_colours=options.match_colours,
        identity_net=open_identity_net(options.identity_net, options.base, options.id_adapter),
        **_arguments(options),
    )
    for line in similarities(photo, edited, people):
        say(line)
    return _write(options, edited, "swap")


def restore_face(options: RestoreOptions, face: Choice | None) -> Path:
    """Restore a face of a photo; returns the file."""
    from .adapter import Restorer

    restorer = Restorer.from_pretrained(options.restorer)
    people, pipeline = _open(options)
    person = people[0] if people else None
    edited = pipeline.restore(options.picture, restorer=restorer, id_embeds=person, face=face, **_arguments(options))
    height, width = load_photo(options.picture).shape[:2]
    if edited.images[0].size != (width, height):
        say(f"The photo was enlarged from {width} × {height} to {edited.images[0].width} × {edited.images[0].height}.")
    return _write(options, edited, "restore")


def similarities(before: np.ndarray, edited: EditedPicture, people: Sequence[Identity]) -> list[str]:
    """A line for each edited face: its similarity to the person, before and after.

    Args:
        before: The picture that was edited, of the same size.
        edited: Its edited version.
        people: The person of each face, or one for all.
    """
    analyzer = FaceAnalyzer.for_encoder(people[0].encoder)
    after, lines = np.asarray(edited.images[0]), []
    for i, points in enumerate(edited.landmarks[0]):
        person = people[min(i, len(people) - 1)].embedding(normalised=True).numpy()
        found = analyzer.encoder.embed(np.stack([analyzer.encoder.crop(image, points) for image in (before, after)]))
        old, new = cosine_similarity(found, person[None])
        lines.append(f"face {i}: similarity to the person {new:.3f}, before {old:.3f}")
    return [*lines, f"By {people[0].encoder}, which the adapter reads{beside_strangers(people[0].encoder)}."]


def _open(options: EditOptions) -> tuple[list[Identity], Any]:
    """The people and the pipeline. Files of identities are read before the models are opened."""
    _ = options.marks.people, options.marks.signer
    people = [Identity.load(file) for file in options.identity]
    if options.encoder is not None:
        register_encoder(options.encoder)
    pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, options.device)
    options.marks.prepare(pipeline)
    if options.photo:
        people = [pipeline.encode_identity(list(options.photo))]
    return people, pipeline


def _arguments(options: EditOptions) -> dict[str, Any]:
    given = {
        "prompt": options.prompt,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "id_scale": options.id_scale,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "negative_prompt": options.negative_prompt,
        "generator": torch.Generator().manual_seed(options.seed),
    }


def _write(options: EditOptions, edited: EditedPicture, command: str) -> Path:
    told = {
        "task": command,
        "base": options.base,
        "adapter": options.id_adapter or options.base,
        "prompt": options.prompt or "",
        "seed": options.seed,
    }
    path = options.output_for(command)
    write_bytes(path, options.marks.file_of(edited.images[0], told), ProvenanceError)
    return path
