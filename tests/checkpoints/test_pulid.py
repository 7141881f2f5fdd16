"""Pictures through PuLID's files are those of the published maths, in whole denoising runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from idgen import Identity, IdentityAdapter
from idgen.adapter import PRESETS
from idgen.checkpoints.layout import known_layers
from idgen.convert import convert
from idgen.errors import AdapterError, BlockedIdentityError, CheckpointError, IdentityError
from idgen.info import info
from idgen.provenance import IdentityBlocklist
from tests.components import make_adapter, make_unet, seeded

from .arithmetic_pulid import both_halves, publish
from .published_pulid import tiny_pulid
from .test_arithmetic import arguments, assert_same, pipeline, widths

VERSIONS = ("pulid-v1", "pulid-v1.1")


def person(photos: int) -> tuple[Identity, torch.Tensor, torch.Tensor]:
    """Somebody, and what PuLID's encoder reads of them: x (photos, inputs), and y (photos, 5, n, width)."""
    face = 20 * torch.nn.functional.normalize(torch.randn(photos, 512, generator=seeded(1)), dim=-1)
    image = torch.nn.functional.normalize(torch.randn(photos, 6, generator=seeded(2)), dim=-1)
    y = 3 * torch.randn(photos, 5, 4, 12, generator=seeded(3))
    features = torch.cat([torch.nn.functional.pad(image, (0, 6))[:, None], y.flatten(1, 2)], 1)
    identity = Identity(embeddings=face, encoder="insightface/antelopev2", features=features)
    return identity, torch.cat([face, image], 1), y


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("pulid-v1", {"ortho": "ortho_v2", "num_zero": 8}, {}),
    ("pulid-v1", {"ortho": "ortho", "num_zero": 16}, {"guidance": 1.0}),
    ("pulid-v1", {"ortho": None, "num_zero": 0}, {"photos": 2}),
    ("pulid-v1", {"ortho": "ortho", "num_zero": 3}, {"photos": 3, "images": 2}),
    ("pulid-v1.1", {"ortho": "ortho_v2", "num_zero": 20}, {}),
    ("pulid-v1.1", {"ortho": "ortho_v2", "num_zero": 0}, {"photos": 3, "images": 2}),
    ("pulid-v1.1", {"ortho": "ortho", "num_zero": 2}, {"no_negative": True}),
    ("pulid-v1.1", {"ortho": "ortho_v2", "num_zero": 20}, {"no_negative": True, "photos": 2, "family": "sd"}),
]


@pytest.mark.parametrize(("version", "fusion", "case"), CASES)
def test_pictures_are_those_of_the_published_maths(
    version: str, fusion: dict[str, Any], case: dict[str, Any], tmp_path: Path
) -> None:
    family, images = case.get("family", "sdxl"), case.get("images", 1)
    call = arguments(family, case.get("guidance", 5.0), num_images_per_prompt=images)
    if case.get("no_negative"):  # stock SDXL gives zeros where there is no negative prompt
        call["negative_prompt_embeds"] = torch.zeros_like(call["negative_prompt_embeds"])
    stock, ours = pipeline(family), pipeline(family)
    file = tiny_pulid(version, hidden=widths(stock.unet))
    parts, (who, x, y) = file.make(), person(case.get("photos", 1))
    plain = stock(**call | {"generator": seeded(6)}).images
    halves = both_halves(version, parts["id_adapter"], x, y)
    publish(stock.unet, parts["id_adapter_attn_layers"], halves, scale=0.7, images=images, **fusion)
    expected = stock(**call | {"generator": seeded(6)}).images

    ours.load_id_adapter(file.write(tmp_path))
    ours.id_adapters["default"].set_fusion(**fusion)
    found = ours(**call | {"generator": seeded(6)}, id_embeds=who, id_scale=0.7).images
    assert (expected - plain).abs().max() > 0.05
    assert_same(found, expected, 1e-5)
    assert torch.equal(ours(**call | {"generator": seeded(6)}, id_embeds=who, id_scale=0.0).images, plain)
    ours.unload_id_adapter()
    assert torch.equal(ours(**call | {"generator": seeded(6)}).images, plain)


def load(pipe: Any, version: str, folder: Path, **options: Any) -> None:
    pipe.load_id_adapter(tiny_pulid(version, hidden=widths(pipe.unet)).write(folder), **options)


def test_regions_divide_what_is_fused_over_the_whole_picture(tmp_path: Path) -> None:
    """The same person in both halves of the picture is the person without masks."""
    pipe, (who, _, _) = pipeline("sdxl"), person(1)
    load(pipe, "pulid-v1", tmp_path)
    left = torch.zeros(32, 32, dtype=torch.bool)
    left[:, :16] = True
    expected = pipe(**arguments("sdxl"), id_embeds=who).images
    found = pipe(**arguments("sdxl"), id_embeds=[who, who], id_masks=[left, ~left]).images
    assert_same(found, expected, 1e-5)


def test_the_order_of_loading_does_not_matter(tmp_path: Path) -> None:
    """PuLID is fused with the text attention alone, not with what another adapter has added to it."""
    drawn, (who, _, _) = [], person(1)
    for names in (("pulid", "other"), ("other", "pulid")):
        pipe = pipeline("sdxl")
        other = make_adapter(pipe.unet)
        for name in names:
            if name == "pulid":
                load(pipe, "pulid-v1.1", tmp_path, adapter_name=name)
            else:
                pipe.load_id_adapter(other, adapter_name=name)
        people = {"pulid": who, "other": Identity.random("test", 8, seed=1)}
        drawn.append(pipe(**arguments("sdxl"), id_embeds=people).images)
    assert_same(drawn[0], drawn[1], 1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_offloading_and_the_blocklist(version: str, tmp_path: Path) -> None:
    pipe, (who, _, _) = pipeline("sdxl"), person(2)
    load(pipe, version, tmp_path)
    expected = pipe(**arguments("sdxl"), id_embeds=who).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert_same(pipe(**arguments("sdxl"), id_embeds=who).images, expected, 1e-5)
    pipe.id_blocklist = IdentityBlocklist.of(who, threshold=0.5)
    with pytest.raises(BlockedIdentityError):
        pipe(**arguments("sdxl"), id_embeds=who)
    assert who.features is not None
    with pytest.raises(BlockedIdentityError):
        pipe.id_adapters["default"].encode(who.by_photo()[None], who.features[None])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_encoder_in_float32(version: str, dtype: torch.dtype, tmp_path: Path) -> None:
    pipe, (who, _, _) = pipeline("sdxl"), person(1)
    load(pipe, version, tmp_path)
    adapter, call = pipe.id_adapters["default"], arguments("sdxl", guidance=1.0)
    expected = pipe(**call | {"generator": seeded(6)}, id_embeds=who, id_scale=0.3).images
    plain = pipe(**call | {"generator": seeded(6)}).images
    pipe.to(dtype)
    half = {name: value.to(dtype) if isinstance(value, torch.Tensor) else value for name, value in call.items()}
    found = pipe(**half | {"generator": seeded(6)}, id_embeds=who, id_scale=0.3).images
    assert (found - expected).abs().mean() < 0.2 * (expected - plain).abs().mean()
    assert {weight.dtype for weight in adapter.to_tokens.parameters()} == {torch.float32}
    assert {weight.dtype for weight in adapter.branches.parameters()} == {dtype}


def test_presets_and_defaults_are_the_published_ones(tmp_path: Path) -> None:
    pipe = pipeline("sdxl")
    for version, default in (("pulid-v1", ("ortho_v2", 8)), ("pulid-v1.1", ("ortho_v2", 20))):
        file = tiny_pulid(version, hidden=widths(pipe.unet)).write(tmp_path)
        pipe.load_id_adapter(file)
        config = pipe.id_adapters["default"].config
        assert (config["ortho"], config["num_zero"]) == default
        for preset, published in (("fidelity", ("ortho_v2", 8)), ("extremely style", ("ortho", 16))):
            pipe.load_id_adapter(file, preset=preset)
            config = pipe.id_adapters["default"].config
            assert (config["ortho"], config["num_zero"]) == published
            pipe.id_adapters["default"].save_pretrained(tmp_path / "saved")
            assert IdentityAdapter.from_pretrained(tmp_path / "saved").config["num_zero"] == published[1]
    assert list(PRESETS) == ["fidelity", "extremely style"]
    with pytest.raises(AdapterError, match="fidelity, extremely style, got 'style'"):
        pipe.load_id_adapter(file, preset="style")
    for ortho, num_zero in (("v2", 8), ("ortho", -1), ("ortho", 2.0), ("ortho", 10**6)):
        with pytest.raises(AdapterError, match="must be"):
            pipe.id_adapters["default"].set_fusion(ortho, num_zero)


def test_a_repacked_file_is_the_same_adapter(tmp_path: Path) -> None:
    unet = make_unet("sd", cross_attention_dim=64)
    own = IdentityAdapter.from_pretrained(tiny_pulid("pulid-v1").write(tmp_path), unet=unet)
    repacked = tiny_pulid("pulid-v1", "ip-adapter_pulid_sdxl_fp16.safetensors", is_repacked=True).write(tmp_path)
    again = IdentityAdapter.from_pretrained(repacked, unet=unet)
    assert dict(again.config) == dict(own.config)
    weights = own.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("version", VERSIONS)
def test_convert_there_and_back_and_info(version: str, tmp_path: Path) -> None:
    layers = [*known_layers(16).values()]
    small: dict[str, Any] = {"hidden": layers, "cross": 8, "width": 4}
    file = tiny_pulid(version, "pulid.safetensors", **small).write(tmp_path)
    before, kind = load_file(file), "pulid" if version == "pulid-v1" else "idformer"
    for target in ("folder", "one.bin", "two.safetensors"):
        convert(str(file), tmp_path / target)
        file = tmp_path / target
        facts = info(str(file))
        assert facts["projection"].startswith(kind)
        assert facts["fusion"] == f"ortho_v2, {8 if version == 'pulid-v1' else 20} zero tokens"
    after = load_file(file)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("version", VERSIONS)
def test_features_that_do_not_fit_are_refused(version: str, tmp_path: Path) -> None:
    pipe = pipeline("sdxl")
    pipe.load_id_adapter(tiny_pulid(version, hidden=widths(pipe.unet)).write(tmp_path))
    who, x, _ = person(1)
    assert who.features is not None
    with pytest.raises(IdentityError, match="no image features"):
        pipe(**arguments("sdxl"), id_embeds=x[0, :512])
    two, _, _ = person(2)
    with pytest.raises(AdapterError, match="without weights"):
        pipe(**arguments("sdxl"), id_embeds=replace(two, weights=torch.tensor([3.0, 1.0])))
    call = arguments("sdxl", prompt_embeds=torch.zeros(2, 7, 64), pooled_prompt_embeds=torch.zeros(2, 16))
    call |= {"negative_prompt_embeds": None, "negative_pooled_prompt_embeds": None, "guidance_scale": 1.0}
    with pytest.raises(AdapterError, match="same number of photos"):
        pipe(**call, id_embeds=[who, two])
    cut = Identity(embeddings=who.embeddings, encoder=who.encoder, features=who.features[:, :-1])
    with pytest.raises(AdapterError, match="rows"):
        pipe(**arguments("sdxl"), id_embeds=cut)


def test_what_is_no_whole_file_is_refused(tmp_path: Path) -> None:
    unet = make_unet("sd", cross_attention_dim=64)
    for changes, message in (
        ({"id_adapter.more": torch.ones(1)}, r"unexpected: to_tokens\.more"),
        ({"more.weight": torch.ones(1)}, r"unexpected: more\.weight"),
        ({"id_adapter.proj_out": None}, "proj_out' is missing"),
        ({"id_adapter.mapping_3.1.bias": None}, r"missing: to_tokens\.mapping_3\.1\.bias"),
        ({"id_adapter.id_embedding_mapping.0.weight": torch.ones(12, 9)}, "reads 512 numbers"),
    ):
        tensors = torch.load(tiny_pulid("pulid-v1.1").write(tmp_path), weights_only=True) | changes
        torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "a.bin")
        with pytest.raises(CheckpointError, match=message):
            IdentityAdapter.from_pretrained(tmp_path / "a.bin", unet=unet)
