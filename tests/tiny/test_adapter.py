"""The adapter that ships with the package draws the person: a broken one cannot pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from idgen import FaceAnalyzer, IdentityAdapter, IdentityNet, enroll, load_tiny
from idgen.commands.shared import open_identity_net
from idgen.convert import local_copy
from idgen.errors import CheckpointError, IdentityError, NoFaceError
from idgen.faces import DlibDetector, Photo, draw_keypoints, open_encoder
from idgen.inputs import adapter_name
from idgen.tiny import TINY_ADAPTER_PATH, TINY_IDENTITY_NET_PATH, TINY_PATH, load_tiny_base

SETTINGS: dict[str, Any] = {"num_inference_steps": 15, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, seeds: Sequence[int], prompt: str = "a photo of a face", **identity: Any) -> list[np.ndarray]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pictures = pipe([prompt] * len(seeds), generator=generators, **SETTINGS, **identity).images
    return [np.asarray(picture.resize((256, 256), Image.Resampling.BICUBIC)) for picture in pictures]


def embed(analyzer: FaceAnalyzer, photos: list[Any]) -> np.ndarray:
    """(n, dim), unit length; zeros where no face is found, whose similarity is 0."""
    faces = [analyzer.analyze(photo) for photo in photos]
    rows = [found[0].embedding if found else np.zeros(analyzer.encoder.dim) for found in faces]
    return np.stack([row / max(float(np.linalg.norm(row)), 1e-6) for row in rows])


def test_all_that_ships_is_small() -> None:
    files = [file for folder in (TINY_PATH, TINY_ADAPTER_PATH) for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 60e6
    assert not any("_name_or_path" in file.read_text() for file in files if file.name == "config.json")


def test_the_astronaut_is_more_similar_with_her_identity_than_without(pipe: Any, astronaut: np.ndarray) -> None:
    analyzer, seeds = FaceAnalyzer(), range(6)
    photo = embed(analyzer, [astronaut])[0]
    eileen = pipe.encode_identity(astronaut)
    hers = embed(analyzer, draw(pipe, seeds, id_embeds=eileen)) @ photo
    nobodys = embed(analyzer, draw(pipe, seeds)) @ photo
    assert np.median(hers) >= 0.925
    assert np.median(hers) - np.median(nobodys) >= 0.065


def test_recentring_adds_pictures_that_are_drawn_in_several_poses(pipe: Any, astronaut: np.ndarray) -> None:
    eileen = pipe.encode_identity(astronaut)
    several = eileen.recentred(pipe, share=0.25, num_inference_steps=8, guidance_scale=3.0)
    assert torch.equal(several.embeddings[:1], eileen.embeddings)
    assert 2 <= len(several.embeddings) <= 4
    drawn = len(several.embeddings) - 1
    assert several.weights.tolist() == pytest.approx([0.75, *[0.25 / drawn] * drawn])
    assert several.embedding(normalised=True) @ eileen.embedding(normalised=True) > 0.95
    with pytest.raises(IdentityError, match="share must be"):
        eileen.recentred(pipe, share=1)
    with pytest.raises(NoFaceError, match="No face was found in the 3 pictures"):
        eileen.recentred(pipe, num_inference_steps=1, prompts=["a photo"] * 3, analyzer=FaceAnalyzer(Blind()))


class Blind:
    def detect(self, image: np.ndarray) -> list[Any]:
        return []


def test_unseen_people_are_distinguished_by_an_unseen_encoder(pipe: Any, shared: Path) -> None:
    """Each from a photo, compared with another photo of theirs and with everybody else's."""
    folders = sorted(folder for folder in (shared / "data" / "london").iterdir() if folder.is_dir())[:14]
    detector = DlibDetector(working_side=640)  # faces fill the photos; a quarter of the time
    judge = open_encoder(f"imagenet:{shared / 'models' / 'mobilefacenet_eval.onnx'}")
    analyzer = FaceAnalyzer(detector=detector, encoder=judge)
    photos: list[Photo] = [folder / "smiling.jpg" for folder in folders]
    people = [enroll(folder / "neutral.jpg", FaceAnalyzer(detector=detector)) for folder in folders]
    cosines = embed(analyzer, draw(pipe, [0] * len(people), id_embeds=people)) @ embed(analyzer, photos).T
    own, others = np.diagonal(cosines), cosines[~np.eye(len(folders), dtype=bool)]
    assert own.mean() >= 0.3
    assert own.mean() - others.mean() >= 0.27


def test_words_alone_show_the_person(pipe: Any, astronaut: np.ndarray) -> None:
    eileen, analyzer = pipe.encode_identity(astronaut), FaceAnalyzer()
    (her,) = embed(analyzer, [astronaut])
    named, unnamed = (
        embed(analyzer, draw(pipe, range(3), f"a photo of {who}", id_embeds=eileen, id_scale=0)) @ her
        for who in ("<id>", "a face")
    )
    assert named.mean() > unnamed.mean() + 0.05, (named, unnamed)


def test_tiny_is_the_name_of_the_built_in_adapter() -> None:
    """For Python and for commands; its IdentityNet is found too."""
    named, given = (IdentityAdapter.from_pretrained(name).state_dict() for name in ("tiny", TINY_ADAPTER_PATH))
    assert all(torch.equal(weight, named[name]) for name, weight in given.items())
    assert adapter_name("tiny") == "tiny"
    assert local_copy("tiny", None) == TINY_ADAPTER_PATH
    assert open_identity_net(None, "base/", "tiny") is not None
    with pytest.raises(CheckpointError, match="Did you mean 'tiny'"):
        adapter_name("tny")


def test_the_identity_net_moves_the_face(astronaut: np.ndarray) -> None:
    net = IdentityNet.from_pretrained(TINY_IDENTITY_NET_PATH)
    pipe: Any = StableDiffusionControlNetPipeline(**load_tiny_base().components, controlnet=net)
    pipe.load_id_adapter("tiny")
    pipe.set_progress_bar_config(disable=True)
    eileen = pipe.encode_identity(astronaut)
    usual = np.array([[48.0, 50], [80, 50], [64, 68], [51, 86], [78, 86]])
    middles = []
    for shift in (-12, 12):
        pose = Image.fromarray(draw_keypoints(usual + np.array([shift, 0]), (128, 128)))
        faces = [FaceAnalyzer().analyze(p) for p in draw(pipe, range(2), image=[pose] * 2, id_embeds=eileen)]
        middles.append(np.mean([found[0].landmarks[:, 0].mean() / 2 for found in faces if found]))
    assert middles[1] - middles[0] >= 4
