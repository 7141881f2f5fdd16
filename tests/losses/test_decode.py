"""The decoded part against the same part of the whole decoded picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from torch import nn

from idgen.errors import LossError
from idgen.losses import FaceDecoder
from idgen.losses.decode import receptive_margin
from idgen.tiny import load_tiny_base
from tests.components import make_vae

from .inputs import normal

BOX = (40, 56, 70, 90)


@pytest.fixture(scope="module", params=["kl", "kl_shift", "taesd"])
def vae(request: pytest.FixtureRequest) -> Any:
    """In float64, with random weights: an AutoencoderKL, one that shifts latents, and one of TAESD's layout."""
    if request.param == "taesd":
        torch.manual_seed(0)
        widths = (8, 8, 8)
        made: Any = AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
            latent_channels=4,
        )
    else:
        made = make_vae()
        if request.param == "kl_shift":
            made.register_to_config(shift_factor=0.1, scaling_factor=0.36)
    for parameter in made.parameters():
        if parameter.ndim == 1:  # random networks start without biases and gains, which would hide mistakes in them
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return made.double().eval().requires_grad_(False)


def latents_for(vae: Any, side: int = 48, seed: int = 1) -> torch.Tensor:
    """With a picture's unevenness: means and variances differ from place to place."""
    slope = torch.linspace(0.3, 2, side).double()
    return normal(2, vae.config.latent_channels, side, side, seed=seed) * slope + 1 - slope[:, None]


def whole(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """As diffusers' pipelines decode."""
    z = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
    return vae.decode(z).sample / 2 + 0.5


def part(images: torch.Tensor, box: tuple[int, ...], offset: Any = (0, 0)) -> torch.Tensor:
    (x0, y0, x1, y1), (x, y) = box, (int(n) for n in offset)
    return images[..., y0 - y : y1 - y, x0 - x : x1 - x]


def test_whole_pictures_serve_their_crops(vae: Any) -> None:
    latents, boxes, decoder = latents_for(vae), torch.tensor([BOX, BOX]), FaceDecoder(vae=vae)
    seen = decoder.whole(latents.requires_grad_(True))
    assert not seen.images.requires_grad
    torch.testing.assert_close(seen.images, whole(vae, latents), atol=1e-12, rtol=0)
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    with decoder._parts[0].register_forward_hook(count):
        crops = decoder(latents, boxes, seen)
    assert passes == 1  # of the crop; the whole picture is not decoded again
    assert torch.equal(crops.images, decoder(latents, boxes).images)


@pytest.mark.parametrize("margin", [None, 4])
def test_what_is_known_of_whole_pictures_is_computed_in_the_backward_pass_alone(vae: Any, margin: int | None) -> None:
    boxes, weight = torch.tensor([BOX, BOX]), normal(2, 3, BOX[3] - BOX[1], BOX[2] - BOX[0], seed=2)
    found, passes = [], 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    for checkpointing in (False, True):
        decoder, latents = FaceDecoder(vae=vae, margin=margin, checkpointing=checkpointing), latents_for(vae)
        seen = decoder.whole(latents.requires_grad_(True))
        with decoder._parts[0].register_forward_hook(count):
            images, offsets = decoder(latents, boxes, seen)
            assert passes == (0 if checkpointing else 1)
            crop = part(images, BOX, offsets[0])
            (crop * weight).sum().backward()
        passes = 0
        found.append((crop, latents.grad))
    (crop, gradient), (known, its_gradient) = found
    if margin is None:
        torch.testing.assert_close(known, crop, atol=1e-10, rtol=0)
    torch.testing.assert_close(known, part(whole(vae, latents_for(vae)), BOX), atol=1e-10, rtol=0)
    assert its_gradient is not None
    assert gradient is not None
    # Beyond a short margin, parts see different surroundings: few of their values, and these by little.
    assert (its_gradient - gradient).norm() < (1e-10 if margin is None else 0.1) * gradient.norm()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_inside_the_box_it_is_the_full_decode(vae: Any, checkpointing: bool) -> None:
    latents = latents_for(vae)
    boxes = torch.tensor([BOX, (0, 3, 25, 36)]).float()  # in the middle and in a corner, of different sizes
    decoder = FaceDecoder(vae=vae, checkpointing=checkpointing)
    images, offsets = decoder(latents, boxes)
    full = whole(vae, latents)
    assert images.shape[-2] * images.shape[-1] < full.shape[-2] * full.shape[-1]
    assert (offsets % decoder.scale == 0).all()
    for i, box in enumerate(boxes.int().tolist()):
        torch.testing.assert_close(part(images[i], box, offsets[i]), part(full[i], box), atol=1e-10, rtol=0)


def test_the_trained_vae_of_the_built_in_model() -> None:
    """It decodes a part as it decodes the whole, in float32."""
    vae: Any = load_tiny_base().vae
    side, decoder = 32, FaceDecoder(vae=vae)
    latents = normal(1, vae.config.latent_channels, side, side, seed=1).float()
    middle = side * decoder.scale // 2
    box = (middle - 8, middle - 8, middle + 8, middle + 8)
    with torch.no_grad():
        images, offsets = decoder(latents, torch.tensor([box]))
        full = whole(vae, latents)
    torch.testing.assert_close(part(images, box, offsets[0]), part(full, box), atol=1e-4, rtol=0)


def test_the_gradient_is_the_full_decodes(vae: Any) -> None:
    """Exactly without group norms; with them but for their means and variances, which are constants here."""
    weight = normal(2, 3, BOX[3] - BOX[1], BOX[2] - BOX[0], seed=2)
    boxes = torch.tensor([BOX, BOX])

    def gradient(decode: Any) -> torch.Tensor:
        latents = latents_for(vae).requires_grad_(True)
        (decode(latents) * weight).sum().backward()
        assert latents.grad is not None
        return latents.grad

    def crop(latents: torch.Tensor, **options: Any) -> torch.Tensor:
        images, offsets = FaceDecoder(vae=vae, **options)(latents, boxes)
        return part(images, BOX, offsets[0])

    expected, found = gradient(lambda z: part(whole(vae, z), BOX)), gradient(crop)
    assert torch.equal(found, gradient(lambda z: crop(z, checkpointing=True)))
    error = ((found - expected).norm() / expected.norm()).item()
    assert error < (0.05 if isinstance(vae, AutoencoderKL) else 1e-10)


def test_group_norms_of_the_crop_alone_differ() -> None:
    """Why `exact` is worth a pass over the whole picture."""
    vae = make_vae().double()
    latents = latents_for(vae)
    full = part(whole(vae, latents), BOX)
    images, offsets = FaceDecoder(vae=vae, exact=False)(latents, torch.tensor([BOX, BOX]))
    off = (part(images, BOX, offsets[0]) - full).abs().max()
    assert off > 0.01
    everything = FaceDecoder(vae=vae, exact=False)(latents, torch.tensor([[0, 0, 96, 96]] * 2)).images
    torch.testing.assert_close(everything, whole(vae, latents), atol=1e-10, rtol=0)


def test_the_margin_is_what_the_convolutions_see(vae: Any) -> None:
    """One latent pixel more than the margin away, nothing changes; at the margin, something does."""
    decoder = FaceDecoder(vae=vae)
    margin = receptive_margin(decoder._parts)
    hidden = normal(1, decoder._head(latents_for(vae)[:1]).shape[1], 1, 2 * margin + 5, seed=3).requires_grad_(True)
    run = nn.Sequential(*decoder._parts)
    for module in run.modules():  # a group norm sees everything, and a ReLU of a trained network hides some paths
        if isinstance(module, nn.GroupNorm | nn.ReLU):
            module.forward = lambda x: x  # pyright: ignore[reportAttributeAccessIssue]
    middle = hidden.shape[-1] // 2
    try:
        out = run(hidden.expand(-1, -1, 2 * margin + 5, -1))
    finally:
        for module in run.modules():
            module.__dict__.pop("forward", None)
    columns = out[..., middle * decoder.scale : (middle + 1) * decoder.scale]
    (gradient,) = torch.autograd.grad((columns * torch.rand_like(columns)).sum(), hidden)
    (reached,) = gradient.abs().amax((0, 1, 2)).nonzero(as_tuple=True)
    assert reached.min() == middle - margin
    assert reached.max() == middle + margin


def test_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        decoder_block_out_channels=(4, 4), encoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    for vae in (tiny.double(), make_vae().double()):
        vae.requires_grad_(False)
        decoder = FaceDecoder(vae=vae, margin=1, exact=False)
        latents = normal(1, 4, 6, 6, seed=4).requires_grad_(True)
        torch.autograd.gradcheck(lambda z, d=decoder: d(z, torch.tensor([[2, 2, 6, 5]])).images, (latents,))


def test_what_is_kept_for_the_gradient_shrinks() -> None:
    vae = make_vae().requires_grad_(False)
    boxes = torch.tensor([BOX, BOX])

    def kept(decode: Any) -> int:
        """Numbers that autograd holds, each storage once."""
        storages = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = decode(latents_for(vae, 96).float().requires_grad_(True))
        assert out.requires_grad
        return sum(storages.values())

    full = kept(lambda z: whole(vae, z))
    crop = kept(lambda z: FaceDecoder(vae=vae)(z, boxes).images)
    checkpointed = kept(lambda z: FaceDecoder(vae=vae, checkpointing=True)(z, boxes).images)
    assert crop < 0.4 * full
    assert checkpointed < 0.4 * crop


def test_nothing_is_left_in_the_vae() -> None:
    vae = make_vae()
    FaceDecoder(vae=vae)(latents_for(vae).float(), torch.tensor([BOX, BOX]))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in vae.modules())


@pytest.mark.parametrize("box", [(-30, -10, 40, 50), (80, 70, 200, 200), (-50, -50, 200, 200)])
def test_boxes_that_reach_beyond_the_picture(box: tuple[int, ...]) -> None:
    vae = make_vae().double()
    latents = latents_for(vae)[:1]
    images, offsets = FaceDecoder(vae=vae)(latents, torch.tensor([box]))
    inside = max(box[0], 0), max(box[1], 0), min(box[2], 96), min(box[3], 96)
    torch.testing.assert_close(part(images, inside, offsets[0]), part(whole(vae, latents), inside), atol=1e-10, rtol=0)


def test_what_is_refused() -> None:
    vae = make_vae()
    latents = latents_for(vae).float()
    with pytest.raises(LossError, match="need"):
        FaceDecoder(vae=vae)(latents, torch.tensor([BOX]))
    for nowhere in ((100, 0, 120, 20), (-9, 3, 0, 8), (5, 5, 5, 9), (float("nan"),) * 4):
        with pytest.raises(LossError, match="is outside the picture"):
            FaceDecoder(vae=vae)(latents, torch.tensor([BOX, nowhere]))
    with pytest.raises(LossError, match="margin"):
        FaceDecoder(vae=vae, margin=-1)
    with pytest.raises(LossError, match="VQModel"):
        FaceDecoder(vae=VQModel(block_out_channels=(32,)))  # pyright: ignore[reportArgumentType]
