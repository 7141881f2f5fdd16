"""People who may not be drawn are not."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from idgen import FaceAnalyzer, Identity, enroll
from idgen.errors import (
    BlockedIdentityError,
    CheckpointError,
    EncoderMismatchError,
    IdentityError,
    ProvenanceError,
)
from idgen.faces import DlibEncoder
from idgen.provenance import IdentityBlocklist
from idgen.provenance.thresholds import find_threshold, match_rate
from tests.components import call_arguments, make_adapter, make_pipeline

STEPS = {"num_inference_steps": 1, "output_type": "np"}


@pytest.fixture(scope="module")
def eileen(astronaut: np.ndarray, analyzer: FaceAnalyzer) -> Identity:
    return enroll(astronaut, analyzer)


@pytest.fixture
def people() -> list[Identity]:
    return [Identity.random("some-encoder", 64, norm=20, seed=seed) for seed in range(5)]


@pytest.fixture
def pipeline(eileen: Identity):
    pipeline = make_pipeline()
    adapter = make_adapter(pipeline.unet, encoder=DlibEncoder.name, embedding_dim=128)
    pipeline.load_id_adapter(adapter, face_analyzer=FaceAnalyzer())
    pipeline.id_blocklist = IdentityBlocklist.of(eileen)
    return pipeline


def test_listed_and_unlisted_people(people: list[Identity]) -> None:
    listed = IdentityBlocklist.of(*people[:3], threshold=0.8)
    assert len(listed) == 3
    for person in people[:3]:
        with pytest.raises(BlockedIdentityError, match=r"cosine 1\.000, threshold 0\.8"):
            listed.check(person)
        with pytest.raises(BlockedIdentityError):
            listed.check(person.anonymise(30, seed=11))  # cos 30° = 0.87
        listed.check(person.anonymise(40, seed=11))  # cos 40° = 0.77
    for person in people[3:]:
        listed.check(person)


def test_one_matching_photo_among_many_is_enough(people: list[Identity]) -> None:
    listed = IdentityBlocklist.of(people[0], threshold=0.8)
    with pytest.raises(BlockedIdentityError):
        listed.check(Identity.mean(people))


def test_length_and_convention_do_not_matter(people: list[Identity]) -> None:
    person = people[0]
    listed = IdentityBlocklist.of(person, threshold=0.99)
    unit = Identity(embeddings=person.embeddings, encoder=person.encoder, normalised=True)
    for same in (unit, Identity(embeddings=person.embeddings * 100, encoder=person.encoder)):
        with pytest.raises(BlockedIdentityError):
            listed.check(same)


def test_another_encoder_cannot_pass_unseen(people: list[Identity]) -> None:
    listed = IdentityBlocklist.of(people[0], threshold=0.8)
    with pytest.raises(EncoderMismatchError, match="cannot be compared"):
        listed.check(Identity.random("other-encoder", 64))
    with pytest.raises(EncoderMismatchError):
        listed.adding(Identity.random("other-encoder", 64))
    with pytest.raises(IdentityError, match="calibrate"):
        IdentityBlocklist.of(people[0])
    with pytest.raises(IdentityError, match="threshold"):
        IdentityBlocklist.of(people[0], threshold=float("nan"))


def test_its_file_holds_directions_and_nothing_else(people: list[Identity], tmp_path: Path) -> None:
    path = tmp_path / "listed.safetensors"
    named = [Identity(embeddings=p.embeddings, encoder=p.encoder, name="Anna") for p in people]
    IdentityBlocklist.of(*named, threshold=0.8).save(path)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["embeddings"]
        assert torch.allclose(file.get_tensor("embeddings").norm(dim=-1), torch.ones(5))
    assert b"Anna" not in path.read_bytes()
    loaded = IdentityBlocklist.load(path)
    assert (len(loaded), loaded.encoder, loaded.threshold) == (5, "some-encoder", 0.8)
    with pytest.raises(BlockedIdentityError):
        loaded.check(people[4])


def test_files_that_are_none(people: list[Identity], tmp_path: Path) -> None:
    people[0].save(tmp_path / "identity.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name, why in (("identity", "not a blocklist"), ("text", "as safetensors"), ("nowhere", "There is no file")):
        with pytest.raises(CheckpointError, match=why):
            IdentityBlocklist.load(tmp_path / f"{name}.safetensors")


def test_a_pipeline_refuses(pipeline, eileen: Identity, astronaut: np.ndarray) -> None:
    with pytest.raises(BlockedIdentityError):
        pipeline.encode_identity(astronaut)
    with pytest.raises(BlockedIdentityError):
        pipeline("a face", id_image=astronaut, **STEPS)
    with pytest.raises(BlockedIdentityError):
        pipeline("a face", id_embeds=eileen, **STEPS)
    with pytest.raises(BlockedIdentityError):
        pipeline("a face", id_embeds=eileen.embeddings, **STEPS)
    stranger = Identity.random(DlibEncoder.name, 128, norm=1.5, seed=0)
    half = np.ones((64, 64), bool)
    with pytest.raises(BlockedIdentityError):
        pipeline("two faces", id_embeds=[stranger, eileen], id_masks=[half, half], **STEPS)
    pipeline("a face", id_embeds=stranger, **STEPS)


def test_a_list_stays_when_adapters_are_unloaded(pipeline, eileen: Identity, people: list[Identity]) -> None:
    pipeline.id_blocklist = IdentityBlocklist.of(people[0], threshold=0.8)
    with pytest.raises(EncoderMismatchError, match="blocklist"):
        pipeline("a face", id_embeds=eileen, **STEPS)
    pipeline.unload_id_adapter()
    assert pipeline.id_blocklist is not None


def test_pictures_are_checked(eileen: Identity, astronaut: np.ndarray, analyzer: FaceAnalyzer) -> None:
    listed = IdentityBlocklist.of(eileen)
    with pytest.raises(BlockedIdentityError):
        listed.check_picture(astronaut[:, ::-1], analyzer)
    listed.check_picture(np.zeros((64, 64, 3), np.uint8), analyzer)


def test_calibration_finds_the_rate_it_is_asked_for() -> None:
    directions = F.normalize(torch.randn(800, 32, generator=torch.Generator().manual_seed(0)), dim=-1).numpy()
    found = find_threshold(directions @ directions.T, 1e-3)
    assert found.pairs == 800 * 799 // 2
    assert found.false_match_rate.value == pytest.approx(1e-3, rel=0.01)
    assert found.false_match_rate.low < 1e-3 < found.false_match_rate.high
    others = F.normalize(torch.randn(800, 32, generator=torch.Generator().manual_seed(1)), dim=-1).numpy()
    assert match_rate(others @ others.T, found.threshold).value == pytest.approx(1e-3, rel=0.3)
    with pytest.raises(ProvenanceError, match="too few"):
        find_threshold(directions[:50] @ directions[:50].T, 1e-3)


def exchanged(pipeline: Any) -> Any:
    pipeline.unet = copy.deepcopy(pipeline.unet)
    return pipeline


def loaded_again(pipeline: Any) -> Any:
    adapter = pipeline.id_adapters["default"]
    pipeline.unload_id_adapter()
    pipeline.load_id_adapter(copy.deepcopy(adapter))
    return pipeline


def of_its_networks(pipeline: Any) -> Any:
    made: Any = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    made.load_id_adapter(copy.deepcopy(pipeline.id_adapters["default"]))
    return made


DERIVED: dict[str, Any] = {
    "itself": lambda pipeline: pipeline,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "from_pipe": lambda pipeline: diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipeline),
    "AutoPipeline": lambda pipeline: diffusers.AutoPipelineForImage2Image.from_pipe(pipeline),
    "a pipeline of its networks": of_its_networks,
    "unloaded and loaded again": loaded_again,
    "UNet exchanged": exchanged,
}


@pytest.mark.parametrize("derived", DERIVED)
def test_every_pipeline_that_shares_the_unet_refuses(eileen: Identity, derived: str) -> None:
    source = make_pipeline()
    source.load_id_adapter(make_adapter(source.unet, encoder=eileen.encoder, embedding_dim=eileen.dim))
    source.id_blocklist = IdentityBlocklist.of(eileen)
    made = cast(Any, DERIVED[derived](source))
    made.set_progress_bar_config(disable=True)
    task = "img2img" if isinstance(made, diffusers.StableDiffusionImg2ImgPipeline) else "txt2img"

    def draw(who: Any) -> Any:
        return cast(Any, made(**call_arguments(task), id_embeds=who)).images

    for who in (eileen, eileen.embedding(), eileen.embedding().tolist(), {"default": eileen}):
        with pytest.raises(BlockedIdentityError):
            draw(who)
    stranger = Identity.random(eileen.encoder, eileen.dim, norm=1.5, seed=0)
    assert draw(stranger) is not None
    gc.collect()  # an exchanged UNet, which has the list too
    made.id_blocklist = None
    assert draw(eileen) is not None


def test_the_blocklist_cannot_be_bypassed(eileen: Identity) -> None:
    """The check is where an embedding becomes tokens, and where tokens meet the UNet."""
    source = make_pipeline()
    adapter = make_adapter(source.unet, encoder=eileen.encoder, embedding_dim=eileen.dim)
    before = adapter.encode(eileen.embedding()[None])
    source.id_blocklist = IdentityBlocklist.of(eileen)
    adapter.attach(source.unet)
    with pytest.raises(BlockedIdentityError):
        adapter.encode(eileen.embedding()[None])
    with pytest.raises(BlockedIdentityError), adapter.activate([before], 1):
        pass
    unknown = replace(before, id_embeds=None)
    with pytest.raises(BlockedIdentityError, match="without their id_embeds"), adapter.activate([unknown], 1):
        pass
    nobody = adapter.encode(torch.zeros(1, eileen.dim))
    with adapter.activate([nobody], 1):
        pass
