"""Swapping faces: what is outside of the mask stays, and nobody on the blocklist is replaced or drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idgen import FaceAnalyzer, IdentityNet
from idgen.errors import AdapterError, BlockedIdentityError, ManyFacesError, NoFaceError
from idgen.faces import ARCFACE_TEMPLATE, Detection, FaceEncoder, face_oval, match_colours, paste_face
from idgen.pipelines.inpaint import KeptLatents
from idgen.provenance import IdentityBlocklist
from tests.components import SIDE, make_adapter, make_controlnet, make_pipeline, seeded

from .kinds import ANNA, BRUNO

FACES = [ARCFACE_TEMPLATE * scale + shift for scale, shift in ((0.5, (4, 3)), (0.4, (70, 10)))]
"""Landmarks of the two faces of PICTURE, the larger one first."""

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)


class Detector:
    """Finds FACES in any picture."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection.at(points) for points in FACES]


class Encoder:
    """The mean colours of the corners of a crop: an embedding of length 8."""

    name, dim = "test", 8

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.resize(image[int(landmarks[0, 1]) :, int(landmarks[0, 0]) :], (8, 8, 3))

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.reshape(len(crops), 8, -1).mean(-1).astype(np.float32) - 127


def analyzer() -> FaceAnalyzer:
    encoder: FaceEncoder = Encoder()  # pyright: ignore[reportAssignmentType]
    return FaceAnalyzer(Detector(), encoder)


def make(family: str = "sd", **unet: Any) -> Any:
    pipeline = make_pipeline(family, **unet)
    pipeline.load_id_adapter(make_adapter(pipeline.unet), face_analyzer=analyzer())
    return pipeline


def swap(pipeline: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    arguments = {"id_embeds": ANNA, "face": 0, "num_inference_steps": 2, "generator": seeded(1)} | options
    found = pipeline.swap(PICTURE, **arguments)
    return np.asarray(found.images[0]), np.asarray(found.masks[0])


def test_pixels_outside_of_the_mask_are_those_of_the_picture_and_the_face_is_the_person() -> None:
    for family in ("sd", "sdxl"):
        pipeline = make(family)
        picture, mask = swap(pipeline)
        assert picture.shape == PICTURE.shape
        np.testing.assert_array_equal(picture[mask == 0], PICTURE[mask == 0])
        eyes, mouth = FACES[0][:2].mean(0), FACES[0][3:].mean(0)
        x, y = ((eyes + mouth) / 2).round().astype(int)
        assert mask[y, x] == 255
        assert 0.02 < (mask > 0).mean() < 0.4
        assert mask[:, 60:].max() == 0, "the other face is not changed"
        other, _ = swap(pipeline, id_embeds=BRUNO)
        nobody, _ = swap(pipeline, id_scale=0.0)
        assert np.abs(picture.astype(int) - other).max() > 2
        assert np.abs(picture.astype(int) - nobody).max() > 2
        np.testing.assert_array_equal(picture, swap(pipeline)[0])


def test_several_faces_by_index_the_net_and_a_base_for_inpainting() -> None:
    pipeline = make()
    both, mask = swap(pipeline, id_embeds=[ANNA, BRUNO], face=[0, 1])
    first, mask_0 = swap(pipeline)
    _, mask_1 = swap(pipeline, id_embeds=BRUNO, face=1)
    np.testing.assert_array_equal(mask, np.maximum(mask_0, mask_1))
    assert (both != first)[mask_1 > 0].any()
    plain: Any = make_controlnet(pipeline.unet)
    net: Any = IdentityNet.from_config(plain.config)
    net.load_state_dict(plain.state_dict())
    posed, _ = swap(pipeline, identity_net=net)
    assert (posed != first).any()
    filled, mask = swap(make(in_channels=9))
    np.testing.assert_array_equal(filled[mask == 0], PICTURE[mask == 0])
    assert (filled != PICTURE).any()


def test_nobody_on_the_blocklist_is_replaced_or_drawn() -> None:
    pipeline = make()
    target = pipeline.encode_identity(PICTURE, face=0)
    pipeline.id_blocklist = IdentityBlocklist.of(target, threshold=0.999)
    with pytest.raises(BlockedIdentityError):
        swap(pipeline)
    swap(pipeline, face=1)
    with pytest.raises(BlockedIdentityError):  # there, the embedding is that of somebody else
        swap(pipeline, face=None, landmarks=FACES[0] + 2)
    swap(pipeline, face=None, landmarks=FACES[1] + 2)
    pipeline.id_blocklist = IdentityBlocklist.of(ANNA, threshold=0.999)
    with pytest.raises(BlockedIdentityError):
        swap(pipeline)


def test_what_cannot_be_swapped_is_refused_before_anything_is_drawn() -> None:
    pipeline = make()
    for options, error, told in (
        ({"id_embeds": None}, AdapterError, "swap requires"),
        ({"face": None}, ManyFacesError, "2 faces"),
        ({"face": 5}, NoFaceError, "out of range"),
        ({"face": [0, 0]}, AdapterError, "twice"),
        ({"face": [0, 1], "id_embeds": [ANNA]}, AdapterError, "1 people in id_embeds for 2 faces"),
        ({"strength": 0}, AdapterError, "strength"),
    ):
        with pytest.raises(error, match=told):
            swap(pipeline, **options)
    pipeline.unload_id_adapter()
    with pytest.raises(AdapterError, match="No identity adapter"):
        swap(pipeline)


def test_latents_outside_of_the_oval_are_kept_exactly() -> None:
    pipeline = make()
    image = Image.fromarray(PICTURE[:SIDE, :SIDE])
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 5:9, 6:11] = 1
    keep = KeptLatents.of(pipeline, image, mask, seeded(1))
    pipeline.scheduler.set_timesteps(4)
    last, drawn = pipeline.scheduler.timesteps[-1], torch.randn(keep.latents.shape)
    found = keep(pipeline, 3, last, {"latents": drawn})["latents"]
    outside = keep.mask.expand_as(found) == 0
    torch.testing.assert_close(found[outside], keep.latents[outside], rtol=0, atol=0)
    torch.testing.assert_close(found[~outside], drawn[~outside], rtol=0, atol=0)
    assert keep.mask[0, 0, 2:5, 3:6].all(), "a latent with one pixel of the face is drawn"
    assert keep.mask.sum() == 9


@pytest.mark.parametrize("seed", range(25))
def test_a_face_is_pasted_where_it_was_cut_and_nothing_outside_of_its_mask_changes(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 120, 2)
    scale, angle, x, y = random.uniform((0.05, -180, -60, -60), (3, 180, 150, 150))
    photo = np.full((height, width, 3), 100, np.uint8)
    photo[height // 2 :] = 180
    turn = np.radians(angle)
    rotation = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    landmarks = (ARCFACE_TEMPLATE - 56) @ rotation + (x, y)
    opacity = face_oval(ARCFACE_TEMPLATE, 112, 112)
    assert opacity[0].max() == opacity[:, -1].max() == 0
    assert opacity.max() == 1
    pasted, mask = paste_face(photo, np.full((112, 112, 3), 140, np.uint8), opacity, landmarks, ARCFACE_TEMPLATE)
    assert pasted.shape == photo.shape
    np.testing.assert_array_equal(pasted[mask == 0], photo[mask == 0])
    assert (np.abs(pasted.astype(int) - 140) <= 1)[mask == 255].all()


def test_colours_are_matched_within_the_mask() -> None:
    random = np.random.default_rng(1)
    image, like = random.normal((90, 120, 150), 20, (40, 40, 3)), random.normal((150, 110, 90), 18, (40, 40, 3))
    image, like = image.clip(0, 255).astype(np.uint8), like.clip(0, 255).astype(np.uint8)
    mask = np.zeros((40, 40))
    mask[10:30, 10:30] = 1
    matched = match_colours(image, like, mask)[10:30, 10:30]
    np.testing.assert_allclose(matched.mean((0, 1)), like[10:30, 10:30].mean((0, 1)), atol=1)
    np.testing.assert_allclose(matched.std((0, 1)), like[10:30, 10:30].std((0, 1)), atol=1.5)
