"""Pictures through public files: as the published maths gives them, and as diffusers draws where it opens the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from idgen import Identity, IdentityAdapter
from idgen.checkpoints.variants import VARIANTS
from idgen.pipelines.loaded import LoadedAdapter
from tests.components import TO_COMPILE, call_arguments, make_pipeline, seeded

from .arithmetic import publish, tokens_of
from .test_public import tiny


class Clip:
    """Features as a CLIP encoder gives them, of the right shape for the tiny adapters."""

    dim = 12

    def unconditional(self) -> torch.Tensor:
        return torch.randn(1, 5, 12, generator=seeded(8))


def pipeline(family: str, **unet: Any) -> Any:
    return make_pipeline(family, cross_attention_dim=64, **unet)


def arguments(family: str, guidance: float = 5.0, **changes: Any) -> dict[str, Any]:
    """A call with random text, as wide as the public projections need."""
    given = call_arguments(guidance_scale=guidance, output_type="latent")
    del given["prompt"]
    text = torch.randn(2, 7, 64, generator=seeded(9))
    given |= {"prompt_embeds": text[:1], "negative_prompt_embeds": text[1:]}
    if family == "sdxl":
        pooled = torch.randn(2, 16, generator=seeded(10))
        given |= {"pooled_prompt_embeds": pooled[:1], "negative_pooled_prompt_embeds": pooled[1:]}
    return given | changes


def widths(unet: Any) -> list[int]:
    """Width of each cross-attention layer in the order of the attention processors."""
    layers = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors]
    return [layer.inner_dim for layer in layers if layer.is_cross_attention]


def assert_same(found: torch.Tensor, expected: torch.Tensor, digits: float) -> None:
    """Latents after a whole run, relative to the largest: guidance enlarges them and their rounding alike."""
    assert (found - expected).abs().max() <= digits * expected.abs().max()


def person(photos: int = 2) -> Identity:
    embeddings = 20 * torch.randn(photos, 8, generator=seeded(11))
    features = torch.randn(photos, 5, 12, generator=seeded(12))
    return Identity(embeddings=embeddings, encoder="", features=features)


@pytest.mark.parametrize(
    "variant", [name for name in VARIANTS if not name.startswith(("photomaker", "pulid", "facechain"))]
)
@pytest.mark.parametrize(("family", "guidance"), [("sd", 5.0), ("sdxl", 5.0), ("sd", 1.0)])
def test_pictures_are_those_of_the_published_maths(variant: str, family: str, guidance: float, tmp_path: Path) -> None:
    stock, ours = pipeline(family), pipeline(family)
    file = tiny(variant, hidden=widths(stock.unet))
    path = file.write(tmp_path)
    parts, who = file.make(), person()
    features = None if who.features is None else who.features.mean(0, keepdim=True)
    tokens = torch.cat(
        [
            tokens_of(variant, parts["image_proj"], torch.zeros_like(who.embeddings), Clip().unconditional()),
            tokens_of(variant, parts["image_proj"], who.embeddings, features),
        ]
    )
    plain = stock(**arguments(family, guidance)).images
    publish(stock.unet, parts, tokens, scale=0.7)
    expected = stock(**arguments(family, guidance)).images

    ours.load_id_adapter(path, variant=variant)
    loaded: LoadedAdapter = ours._loaded_adapters["default"]
    loaded.image_encoder = Clip()  # pyright: ignore[reportAttributeAccessIssue]
    who = Identity(embeddings=who.embeddings, encoder=loaded.adapter.config["encoder"], features=who.features)
    found = ours(**arguments(family, guidance), id_embeds=who, id_scale=0.7).images
    assert (expected - plain).abs().max() > 0.05
    assert_same(found, expected, 1e-5)

    ours.unload_id_adapter()
    assert torch.equal(ours(**arguments(family, guidance)).images, plain)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("variant", ["faceid", "faceid-plus", "faceid-plusv2"])
def test_pictures_are_those_of_diffusers(variant: str, family: str, tmp_path: Path) -> None:
    stock, ours = pipeline(family), pipeline(family)
    file = tiny(variant, hidden=widths(stock.unet), depth=4)  # diffusers knows no other depth
    path, who = file.write(tmp_path), person(photos=1)
    direction = who.embedding(normalised=True)[None, None]
    stock.load_ip_adapter(tmp_path, subfolder=None, weight_name=path.name, image_encoder_folder=None)
    stock.set_ip_adapter_scale(0.7)
    if "plus" in variant:
        projection = stock.unet.encoder_hid_proj.image_projection_layers[0]
        projection.clip_embeds = torch.cat([Clip().unconditional(), who.features])[:, None]  # pyright: ignore
        projection.shortcut = variant == "faceid-plusv2"
    embeds = torch.cat([torch.zeros_like(direction), direction])
    expected = stock(**arguments(family), ip_adapter_image_embeds=[embeds]).images

    ours.load_id_adapter(path, variant=variant)
    loaded: LoadedAdapter = ours._loaded_adapters["default"]
    loaded.image_encoder = Clip()  # pyright: ignore[reportAttributeAccessIssue]
    who = Identity(embeddings=who.embeddings, encoder=loaded.adapter.config["encoder"], features=who.features)
    found = ours(**arguments(family), id_embeds=who, id_scale=0.7).images
    assert_same(found, expected, 1e-4)


def test_tensors_are_in_the_adapters_own_convention(tmp_path: Path) -> None:
    ours = pipeline("sd")
    ours.load_id_adapter(tiny("faceid", hidden=widths(ours.unet)).write(tmp_path))
    who = Identity(embeddings=person(1).embeddings, encoder="insightface/buffalo_l")
    expected = ours(**arguments("sd"), id_embeds=who).images
    direction = who.embedding(normalised=True)
    assert torch.equal(ours(**arguments("sd"), id_embeds=direction).images, expected)
    assert torch.equal(ours(**arguments("sd"), id_embeds=direction[None]).images, expected)
    assert not torch.equal(ours(**arguments("sd"), id_embeds=20 * direction).images, expected)


def add_lora(pipe: Any) -> None:
    from peft import LoraConfig

    torch.manual_seed(13)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_out.0"]), adapter_name="style")
    for i, (name, weight) in enumerate(pipe.unet.named_parameters()):
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3, generator=seeded(i))


def expect_published(pipe: Any, file: Any, scale: float, lora_scale: float) -> torch.Tensor:
    """The picture that the published maths draws in a pipeline."""
    parts, who = file.make(), person()
    rows = [torch.zeros_like(who.embeddings), who.embeddings]
    tokens = torch.cat([tokens_of("faceid", parts["image_proj"], row, None) for row in rows])
    publish(pipe.unet, parts, tokens, scale, lora_scale)
    return pipe(**arguments("sd")).images


@pytest.mark.parametrize("when", ["never", "before", "after"])
@pytest.mark.parametrize("follows", [False, True])
def test_lora_in_the_file(when: str, follows: bool, tmp_path: Path) -> None:
    """It acts at full strength, or follows; the user's own LoRA stays active; nothing of it is left."""
    stock, ours = pipeline("sd"), pipeline("sd")
    file = tiny("faceid", hidden=widths(stock.unet))
    if when == "before":
        add_lora(ours)
    ours.load_id_adapter(file.write(tmp_path), lora_follows_scale=follows)
    if when == "after":
        add_lora(ours)
    if when != "never":
        add_lora(stock)
    plain = stock(**arguments("sd")).images
    expected = expect_published(stock, file, 0.5, 0.5 if follows else 1.0)
    embeds = {"id_embeds": person().embedding(normalised=True)}
    assert_same(ours(**arguments("sd"), **embeds, id_scale=0.5).images, expected, 1e-5)
    assert torch.equal(ours(**arguments("sd")).images, plain)  # nobody named: not even the LoRA acts
    assert torch.equal(ours(**arguments("sd"), **embeds, id_scale=0.0).images, plain) == follows
    ours.unload_id_adapter()
    assert torch.equal(ours(**arguments("sd")).images, plain)
    assert not any("lora" in name for name in ours.unet.state_dict()) or when != "never"


def test_lora_in_fused_projections(tmp_path: Path) -> None:
    stock, ours = pipeline("sd"), pipeline("sd")
    file = tiny("faceid", hidden=widths(stock.unet))
    ours.load_id_adapter(file.write(tmp_path))
    embeds = {"id_embeds": person().embedding(normalised=True)}
    expected = ours(**arguments("sd"), **embeds).images
    ours.fuse_qkv_projections()
    assert_same(ours(**arguments("sd"), **embeds).images, expected, 1e-5)
    ours.unfuse_qkv_projections()
    assert torch.equal(ours(**arguments("sd"), **embeds).images, expected)


def test_lora_in_a_compiled_unet(tmp_path: Path) -> None:
    torch.compiler.reset()
    ours = pipeline("sd", **TO_COMPILE)
    ours.load_id_adapter(tiny("faceid", hidden=widths(ours.unet)).write(tmp_path))
    embeds = {"id_embeds": person().embedding(normalised=True)}
    expected = ours(**arguments("sd"), **embeds).images
    ours.unet = torch.compile(ours.unet, backend="eager", fullgraph=True)
    assert_same(ours(**arguments("sd"), **embeds).images, expected, 1e-5)


def test_two_files_with_a_lora_each(tmp_path: Path) -> None:
    ours = pipeline("sd")
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        file = tiny("faceid", hidden=widths(ours.unet), seed=seed)
        ours.load_id_adapter(file.write(tmp_path / name), adapter_name=name)
    embeds = person().embedding(normalised=True)
    only_b = ours(**arguments("sd"), id_embeds={"b": embeds}).images
    both = ours(**arguments("sd"), id_embeds=embeds).images
    ours.unload_id_adapter("a")
    assert torch.equal(ours(**arguments("sd"), id_embeds=embeds).images, only_b)
    assert not torch.equal(both, only_b)


def test_opened_without_a_pipeline(tmp_path: Path) -> None:
    pipe = pipeline("sd")
    file = tiny("faceid", hidden=widths(pipe.unet)).write(tmp_path)
    adapter = IdentityAdapter.from_pretrained(file, unet=pipe.unet, torch_dtype=torch.float16)
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float16}
