"""The denoising loss against its formula, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from idgen.errors import LossError
from idgen.losses import DenoisingLoss, Parametrisation, TwoPhaseLoss

from .inputs import face_mask, normal

TABLE = DDPMScheduler().alphas_cumprod.double()
OUTPUT, LATENTS, NOISE = (normal(2, 3, 4, 4, seed=seed) for seed in (1, 2, 3))
TIMESTEPS = torch.tensor([50, 800])


def loss(kind: str = "epsilon", **options: float) -> DenoisingLoss:
    return DenoisingLoss(parametrisation=Parametrisation(TABLE, kind), **options)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_the_error_of_the_clean_latent(kind: str, gamma: float) -> None:
    """All three kinds are the same loss on x0, weighed by min(SNR, γ)."""
    parametrisation = Parametrisation(TABLE, kind)
    scheduler: Any = DDPMScheduler()
    noisy = scheduler.add_noise(LATENTS, NOISE, TIMESTEPS)
    error = (parametrisation.predict_x0(OUTPUT, noisy, TIMESTEPS) - LATENTS).square().mean((1, 2, 3))
    snr = TABLE[TIMESTEPS] / (1 - TABLE[TIMESTEPS])
    found = loss(kind, snr_gamma=gamma)(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(found, error * snr.clamp(max=gamma), rtol=1e-5, atol=1e-6)
    assert (snr > gamma).tolist() == [True, False]


def test_plain_mean_squared_error() -> None:
    found = loss()(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(found, torch.stack([((OUTPUT[i] - NOISE[i]) ** 2).mean() for i in range(2)]))


def test_pseudo_huber_is_the_published_distance_for_each_number() -> None:
    """√(‖x − y‖² + c²) − c with c = 0.00054 √d, divided by √d."""
    d = OUTPUT[0].numel()
    c = 0.00054 * d**0.5
    norms = (OUTPUT - NOISE).flatten(1).norm(dim=1)
    found = loss(huber=0.00054)(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(found, ((norms.square() + c**2).sqrt() - c) / d**0.5)
    weighted = loss(huber=0.00054, snr_gamma=5.0)(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(weighted, found * loss(snr_gamma=5.0).snr_weight(TIMESTEPS))


@pytest.mark.parametrize("background_weight", [0.0, 0.1, 0.999])
def test_face_mask(background_weight: float) -> None:
    mask = face_mask()
    expected = []
    for i in range(2):
        numerator = denominator = 0.0
        for y in range(4):
            for x in range(4):
                m = mask[i, 0, y, x] + background_weight * (1 - mask[i, 0, y, x])
                numerator = numerator + m * ((OUTPUT[i, :, y, x] - NOISE[i, :, y, x]) ** 2).mean()
                denominator = denominator + m
        expected.append(numerator / denominator)
    found = loss(background_weight=background_weight)(OUTPUT, LATENTS, NOISE, TIMESTEPS, mask)
    torch.testing.assert_close(found, torch.stack([torch.as_tensor(x) for x in expected]))


def test_an_empty_mask_is_the_whole_picture_or_nothing() -> None:
    empty = torch.zeros(2, 1, 4, 4)
    output = OUTPUT.clone().requires_grad_(True)
    plain = loss()(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    found = loss(background_weight=0.1)(OUTPUT, LATENTS, NOISE, TIMESTEPS, empty)
    torch.testing.assert_close(found, plain)
    nothing = loss(background_weight=0.0)(output, LATENTS, NOISE, TIMESTEPS, empty)
    nothing.sum().backward()
    assert nothing.tolist() == [0, 0]
    assert output.grad is not None
    assert not output.grad.any()


def test_half_precision_is_summed_in_float32() -> None:
    found = loss(snr_gamma=5.0)(OUTPUT.bfloat16(), LATENTS.bfloat16(), NOISE.bfloat16(), TIMESTEPS)
    assert found.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(
        found.double(), loss(snr_gamma=5.0)(OUTPUT, LATENTS, NOISE, TIMESTEPS), rtol=0.02, atol=0
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_two_phases_compare_noise_and_clean_pictures(kind: str) -> None:
    """StableIdentity, eq. 4: ‖ε̂ − ε‖² from t* on, ‖x̂0 − x0‖² below."""
    parametrisation = Parametrisation(TABLE, kind)
    ratio = TABLE[TIMESTEPS].view(2, 1, 1, 1)
    noisy = ratio.sqrt() * LATENTS + (1 - ratio).sqrt() * NOISE
    x0 = parametrisation.predict_x0(OUTPUT, noisy, TIMESTEPS)
    noise = (noisy - ratio.sqrt() * x0) / (1 - ratio).sqrt()
    mask = face_mask()[:, 0]
    weights = 0.3 + 0.7 * mask
    clean, noised = (error.square().mean(1) for error in (x0 - LATENTS, noise - NOISE))
    for phase, errors in ((0.0, noised), (0.6, torch.stack([clean[0], noised[1]])), (1.0, clean)):
        two = TwoPhaseLoss(parametrisation=parametrisation, phase=phase, background_weight=0.3)
        found = two(OUTPUT, noisy, LATENTS, NOISE, TIMESTEPS, mask[:, None])
        torch.testing.assert_close(found, (weights * errors).sum((1, 2)) / weights.sum((1, 2)))
    with pytest.raises(LossError, match="phase"):
        TwoPhaseLoss(parametrisation=parametrisation, phase=2.0)


def test_what_is_refused() -> None:
    with pytest.raises(LossError, match="face_mask"):
        loss(background_weight=0.5)(OUTPUT, LATENTS, NOISE, TIMESTEPS)
    with pytest.raises(LossError, match="background_weight"):
        loss(background_weight=1.5)
    with pytest.raises(LossError, match="snr_gamma"):
        loss(snr_gamma=0)
