"""Replaces faces of a picture: `pipe.swap(picture, id_embeds=…)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..adapter import IdentityNet
from ..errors import AdapterError
from ..faces import Face, Photo, load_photo, match_colours
from .activation import apply_blocklist
from .arguments import IdentityArguments
from .face_crop import (
    EditedPicture,
    FaceChoice,
    FaceCrop,
    chosen_faces,
    crop_framing,
    identity_of,
    pipeline_usage,
    sequence_of,
)
from .image_to_image import image_to_image
from .inpaint import KeptLatents
from .prompts import portrait_prompt

STRENGTH = 0.8
"""How much of a face is drawn anew; docs/editing.md compares values."""


@dataclass(frozen=True, kw_only=True)
class SwapSettings:
    """How faces are replaced.

    Attributes:
        prompt: Prompt; "a photo of" the person if not given.
        strength: How much of the face is drawn anew, in (0, 1]. Lower values keep expression and light, higher ones
            are more like the person.
        identity_net: Keeps the pose by the landmarks of the face; that of the pipeline if not given, if it has one.
        match_colours: Give the drawn face the mean colour and the contrast of the one that it replaces.
        options: Further arguments of the image-to-image pipeline, such as `num_inference_steps`, `guidance_scale`,
            `negative_prompt`, `generator` and `controlnet_conditioning_scale`.

    Raises:
        AdapterError: `strength` is out of range.
    """

    prompt: str | None = None
    strength: float = STRENGTH
    identity_net: IdentityNet | None = None
    match_colours: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise AdapterError(f"strength must be above 0 and at most 1, got {self.strength}.")


def swap(
    pipeline: Any,
    picture: Photo,
    ours: IdentityArguments,
    face: FaceChoice,
    landmarks: np.ndarray | None,
    settings: SwapSettings,
) -> EditedPicture:
    """Replace faces of a picture; see `EditingMixin.swap`."""
    people = ours.people
    if people is None:
        raise AdapterError("swap requires id_image or id_embeds, the person whose face is drawn.")
    name = "id_image" if ours.id_embeds is None else "id_embeds"
    photo = load_photo(picture)
    adapters = list(people) if isinstance(people, Mapping) else list(pipeline._loaded_or_raise())
    faces = chosen_faces(pipeline._loaded_adapters[pipeline._checked(adapters[0])], photo, face, landmarks)
    refuse_blocked_faces(pipeline, photo, faces)
    by_face = _by_face(people, len(faces), name)
    net = settings.identity_net or _net_of(pipeline)
    drawer = image_to_image(pipeline, net)
    mask = np.zeros(photo.shape[:2], np.uint8)
    for each, person in zip(faces, by_face, strict=True):
        crop = FaceCrop.of(photo, each.landmarks, crop_framing(pipeline))
        drawn = _draw(drawer, crop, settings, {name: person, "id_scale": ours.id_scale}, net)
        if settings.match_colours:
            drawn = match_colours(drawn, crop.pixels, crop.oval)
        photo, changed = crop.paste(photo, drawn)
        mask = np.maximum(mask, changed)
    return EditedPicture.of(photo, mask, [each.landmarks for each in faces])


def refuse_blocked_faces(pipeline: Any, photo: np.ndarray, faces: list[Face]) -> None:
    """Refuse to change the face of a person on the blocklist.

    The faces that are found in the place of the edited ones are asked about too: landmarks that are given a little
    beside a face give the embedding of somebody else.

    Raises:
        BlockedIdentityError: The person is on the list.
        EncoderMismatchError: The list was made by another encoder than the adapter reads.
    """
    apply_blocklist(pipeline)
    if (blocklist := pipeline.id_blocklist) is not None:
        analyzer = next(iter(pipeline._loaded_adapters.values())).face_analyzer
        there = [found for found in analyzer.analyze(photo) if any(_overlap(found, face) for face in faces)]
        for face in (*faces, *there):
            blocklist.check(identity_of(face))


def _overlap(one: Face, other: Face) -> bool:
    """Whether the circles around the landmarks of two faces meet."""
    middles = [face.landmarks.mean(0) for face in (one, other)]
    spreads = [np.linalg.norm(face.landmarks - face.landmarks.mean(0), axis=1).max() for face in (one, other)]
    return bool(np.linalg.norm(middles[0] - middles[1]) < sum(spreads))


def _draw(
    drawer: Any, crop: FaceCrop, settings: SwapSettings, identity: dict[str, Any], net: IdentityNet | None
) -> np.ndarray:
    """Draw the face of a crop anew; the latents outside of its oval stay those of the crop."""
    image, usage = Image.fromarray(crop.pixels), pipeline_usage(drawer)
    arguments: dict[str, Any] = {
        "num_inference_steps": usage.num_inference_steps,
        "guidance_scale": usage.guidance_scale,
        **settings.options,
    }
    if net is not None:
        arguments["control_image"] = drawer.prepare_landmarks(crop.points[None], image.size)
    if drawer.unet.config.in_channels == 9:  # a base that was trained for inpainting
        arguments["mask_image"] = Image.fromarray((crop.oval > 0).astype(np.uint8) * 255)
    then = arguments.pop("callback_on_step_end", None)
    keep = KeptLatents.of(drawer, image, crop.oval_mask, arguments.get("generator"), then)
    prompt = portrait_prompt(drawer.id_adapters.values()) if settings.prompt is None else settings.prompt
    found = drawer(prompt, image=image, strength=settings.strength, callback_on_step_end=keep, **identity, **arguments)
    return np.asarray(found.images[0].convert("RGB").resize(image.size))


def _by_face(people: Any, count: int, name: str) -> list[Any]:
    """The people of a call, by face; a dict of them by adapter becomes a list of dicts."""
    if not isinstance(people, Mapping):
        return sequence_of(people, count, name)
    split = {adapter: sequence_of(given, count, name) for adapter, given in people.items()}
    return [{adapter: given[i] for adapter, given in split.items()} for i in range(count)]


def _net_of(pipeline: Any) -> IdentityNet | None:
    """The IdentityNet of a pipeline, alone or in a list of ControlNets."""
    controlnet = getattr(pipeline, "controlnet", None)
    nets = getattr(controlnet, "nets", [controlnet])
    return next((net for net in nets if isinstance(net, IdentityNet)), None)
