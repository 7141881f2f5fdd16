"""Public files: recognised, opened strictly, refused, and converted back without loss."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from idgen import IdentityAdapter
from idgen.adapter.perceiver import PerceiverResampler
from idgen.checkpoints import native, public
from idgen.checkpoints.building import build
from idgen.checkpoints.foreign import supported_layout
from idgen.checkpoints.layouts import unpacked
from idgen.checkpoints.pickled import read_pickle
from idgen.checkpoints.variants import VARIANTS
from idgen.errors import CheckpointError
from tests.components import make_unet

from .published import FULL, Published, flat
from .published_fact import FACT, tiny_fact
from .published_photomaker import PHOTOMAKER, tiny_photomaker
from .published_pulid import PULID, tiny_pulid

TINY = [16, 32, 32, 32, 16, 16, 32]


def tiny(variant: str, name: str = "adapter.bin", **changes) -> Published:
    if variant.startswith("photomaker"):
        return tiny_photomaker(variant, unet(128), **changes)
    if variant == "facechain-fact":
        return tiny_fact(unet(), name, **changes)
    if variant.startswith("pulid"):
        return tiny_pulid(variant, name, **changes)
    sizes = {"hidden": TINY, "cross": 64, "embedding": 8, "clip": 12, "rank": 3, "dim": 64, "depth": 2}
    return Published(variant, name, **(sizes | changes))


def unet(cross: int = 64):
    return make_unet("sd", cross_attention_dim=cross)


@pytest.mark.parametrize("file", [*FULL, *PHOTOMAKER, *PULID, FACT], ids=lambda file: file.name)
def test_full_size_every_tensor_is_accounted_for(file: Published) -> None:
    file.device = "meta"
    state = flat(file.make())
    state = dict(unpacked(state))
    layout = supported_layout(state, file.name)
    config, ours = public.interpret(state, layout, Path("somewhere", file.name))
    adapter = build(IdentityAdapter, config, ours, file.name)
    assert adapter.num_parameters() == sum(tensor.numel() for tensor in state.values())
    variant = VARIANTS[file.variant]
    assert (config["encoder"], config["normalised"]) == (variant.encoder, variant.normalised)
    assert config["num_tokens"] == (1 if file.variant == "photomaker-v1" else file.tokens)
    assert config["projection"].get("shortcut", False) == ("plusv2" in file.name)
    assert config["pool_photos"] == variant.pool_photos
    assert config["image_encoder"] == variant.image_encoder or adapter.to_tokens.has_image_encoder


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_there_and_back_gives_the_same_tensors(variant: str, suffix: str, tmp_path: Path) -> None:
    published = tiny(variant)
    file = published.write(tmp_path)
    before = flat(published.make())
    adapter = IdentityAdapter.from_pretrained(file, variant=variant, unet=unet(published.cross))
    adapter.save_pretrained(tmp_path / "ours")
    again = IdentityAdapter.from_pretrained(tmp_path / "ours")
    back = tmp_path / f"back.{suffix}"
    public.write(native.plain_config(again), again.state_dict(), back)
    after = read_pickle(back) if suffix == "bin" else load_file(back)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    if suffix == "safetensors":  # which says itself what it is
        third = IdentityAdapter.from_pretrained(back)
        assert native.plain_config(third) == native.plain_config(adapter)


@pytest.mark.parametrize(
    ("variant", "name", "found"),
    [
        ("faceid-plus", "ip-adapter-faceid-plus_sd15.bin", "faceid-plus"),
        ("faceid-plusv2", "ip-adapter-faceid-plusv2_sd15.bin", "faceid-plusv2"),
        ("faceid-plus", "renamed.bin", "faceid-plusv2"),
        ("instantid", "ip-adapter.bin", "instantid"),
        ("faceid-portrait-unnorm", "ip-adapter-faceid-portrait_sdxl_unnorm.bin", "faceid-portrait-unnorm"),
        ("instantid", "renamed.bin", "instantid"),
        ("faceid", "renamed.bin", "faceid"),
        ("faceid-portrait", "renamed.bin", "faceid-portrait"),
    ],
)
def test_variants_are_told_apart_and_guesses_logged(variant, name, found, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, logger="idgen")
    file = tiny(variant, name).write(tmp_path)
    adapter = IdentityAdapter.from_pretrained(file, unet=unet())
    expected = VARIANTS[found]
    assert adapter.config["encoder"] == expected.encoder
    assert adapter.config["projection"].get("shortcut", False) == expected.shortcut
    guessed = name == "renamed.bin" and expected.projection != "mlp"
    assert f"'{found}'" in caplog.text
    assert ("guess" in caplog.text) == guessed


def test_variant_is_obeyed_or_refused(tmp_path: Path) -> None:
    file = tiny("instantid", "renamed.bin").write(tmp_path)
    adapter = IdentityAdapter.from_pretrained(file, unet=unet(), variant="faceid-portrait-unnorm")
    assert adapter.config["encoder"] == "insightface/buffalo_l"
    with pytest.raises(CheckpointError, match="'instantid' or 'faceid-portrait-unnorm'"):
        IdentityAdapter.from_pretrained(file, unet=unet(), variant="faceid")
    with pytest.raises(CheckpointError, match="faceid-plusv2"):
        IdentityAdapter.from_pretrained(file, unet=unet(), variant="instant")


def test_another_base_model(tmp_path: Path) -> None:
    file = tiny("faceid").write(tmp_path)
    with pytest.raises(CheckpointError, match="7 cross-attention layers"):
        IdentityAdapter.from_pretrained(file)
    with pytest.raises(CheckpointError, match="another shape"):
        IdentityAdapter.from_pretrained(file, unet=make_unet("sd", block_out_channels=(8, 32), cross_attention_dim=64))


@pytest.mark.parametrize("change", ["missing", "besides", "truncated"])
def test_a_damaged_file_is_refused(change: str, tmp_path: Path) -> None:
    parts = tiny("faceid").make()
    if change == "missing":
        del parts["ip_adapter"]["3.to_v_ip.weight"]
    elif change == "besides":
        parts["ip_adapter"]["3.to_x_ip.weight"] = torch.zeros(1)
    torch.save(parts, tmp_path / "a.bin")
    if change == "truncated":
        data = (tmp_path / "a.bin").read_bytes()
        (tmp_path / "a.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"missing: |unexpected: |damaged"):
        IdentityAdapter.from_pretrained(tmp_path / "a.bin", unet=unet())


class Dangerous:
    def __reduce__(self):
        return Path.touch, (Path(self.path),)  # pyright: ignore


@pytest.mark.parametrize("writer", [torch.save, lambda tree, file: Path(file).write_bytes(pickle.dumps(tree))])
def test_code_in_a_pickle_does_not_run(writer, tmp_path: Path) -> None:
    bad = Dangerous()
    bad.path = str(tmp_path / "ran")  # pyright: ignore
    writer({"image_proj": bad}, tmp_path / "ip-adapter.bin")
    with pytest.raises(CheckpointError, match="run code"):
        IdentityAdapter.from_pretrained(tmp_path / "ip-adapter.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["pulid_encoder.latents", "pulid_ca.0.to_q.weight"], "PuLID for FLUX"),
        (["FacialEncoder.x", "image_proj.x", "adapter_modules.1.to_k_ip.weight"], "ConsistentID"),
        (["id_encoder.x", "adapter_modules.1.to_k_ip.weight"], "MasterWeaver"),
        (["local_fac_prj.latents", "down_blocks.0.attentions.0.x"], "no gated layers"),
        (["w_proj.proj_0.weight", "wplus_adapter.x"], "W[+] adapter"),
        (["lora_unet_down_blocks_0.lora_down.weight"], "LoRA of an IP-Adapter-FaceID"),
        (["image_proj.proj.weight", "image_proj.norm.weight", "ip_adapter.1.to_k_ip.weight"], "plain IP-Adapter"),
        (["model.diffusion_model.x"], "not a known identity adapter"),
    ],
)
def test_foreign_files_are_refused_by_name(keys: list[str], named: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=named):
        IdentityAdapter.from_pretrained(tmp_path / "model.safetensors")


def test_ip_adapter_plus_is_refused(tmp_path: Path) -> None:
    tensors = {"image_proj.latents": torch.zeros(1, 16, 8), "image_proj.proj_in.weight": torch.zeros(8, 1280)}
    save_file(tensors | {"ip_adapter.1.to_k_ip.weight": torch.zeros(1)}, tmp_path / "plus.safetensors")
    with pytest.raises(CheckpointError, match="IP-Adapter Plus"):
        IdentityAdapter.from_pretrained(tmp_path / "plus.safetensors")


def test_words_have_no_place_in_a_public_file(tmp_path: Path) -> None:
    adapter = IdentityAdapter.from_unet(unet(), encoder="test", embedding_dim=8, num_words=1, text_dims=[16])
    with pytest.raises(CheckpointError, match="pseudo-words"):
        public.write(native.plain_config(adapter), adapter.state_dict(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_facechain_facts_file_is_its_arithmetic(tmp_path: Path) -> None:
    """Local tokens through its resampler are those of ours without positions; a norm of the base in the file is not
    read. Its gated layers are GLIGEN's: tests/adapter/test_gated.py."""
    published = tiny("facechain-fact", "adapter_film.ckpt")
    tensors = flat(published.make())
    path = next(name for name in tensors if name.endswith(".linear.weight")).removesuffix("linear.weight")
    torch.save(tensors | {f"{path}ln.weight": torch.ones(16), f"{path}ln.bias": torch.ones(16)}, tmp_path / "a.ckpt")
    base = unet()
    adapter = IdentityAdapter.from_pretrained(tmp_path / "a.ckpt", unet=base)
    assert adapter.config["placement"] == "sequential"
    assert (adapter.config["encoder"], adapter.config["embedding_dim"]) == ("transface-s", 144 * 8)
    local = torch.randn(2, 144, 8, generator=torch.Generator().manual_seed(1))
    perceiver = PerceiverResampler(64, 2, 64, 1, 8, 64)
    resampler = {n.removeprefix("local_fac_prj."): t for n, t in tensors.items() if n.startswith("local_fac_prj.")}
    queries = resampler.pop("latents").expand(2, -1, -1)
    perceiver.load_state_dict(resampler)
    torch.testing.assert_close(adapter(local.flatten(1)), perceiver(local, queries))
    torch.testing.assert_close(adapter(local[None].flatten(2)), perceiver(local, queries).flatten(0, 1)[None])
    adapter.attach(base)
    adapter.detach()
