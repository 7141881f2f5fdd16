"""Clean latents from predictions, for diffusers' own schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from idgen.errors import LossError
from idgen.losses import Parametrisation

from .inputs import normal

KINDS = ("epsilon", "v_prediction", "sample")
LATENTS, NOISE = normal(3, 4, 5, 6, seed=1), normal(3, 4, 5, 6, seed=2)
TIMESTEPS = torch.tensor([3, 400, 950])


def scheduler(cls: Any, kind: str) -> Any:
    return cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler])
def test_a_perfect_prediction_gives_the_clean_latent(cls: Any, kind: str) -> None:
    parametrisation = Parametrisation.of(scheduler(cls, kind))
    noisy = scheduler(DDPMScheduler, kind).add_noise(LATENTS, NOISE, TIMESTEPS)
    perfect = parametrisation.target(LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(parametrisation.predict_x0(perfect, noisy, TIMESTEPS), LATENTS, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_diffusers_computes_but_not_clipped(kind: str) -> None:
    parametrisation = Parametrisation.of(scheduler(DDIMScheduler, kind))
    stock: Any = DDIMScheduler.from_config(scheduler(DDIMScheduler, kind).config, clip_sample=False)
    stock.set_timesteps(1000)
    rows = zip(NOISE.split(1), TIMESTEPS, LATENTS.split(1), strict=True)
    expected = torch.cat([stock.step(noise, int(t), x).pred_original_sample for noise, t, x in rows])
    found = parametrisation.predict_x0(NOISE, LATENTS, TIMESTEPS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found.abs().amax((1, 2, 3)).min() > 1  # which clip_sample=True, the default, would cut off


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_diffusers(kind: str) -> None:
    velocity = scheduler(DDPMScheduler, kind).get_velocity(LATENTS, NOISE, TIMESTEPS)
    expected = {"epsilon": NOISE, "v_prediction": velocity, "sample": LATENTS}[kind]
    target = Parametrisation.of(scheduler(DDPMScheduler, kind)).target(LATENTS, NOISE, TIMESTEPS)
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_comes_out_as_float32(kind: str, dtype: torch.dtype) -> None:
    predict_x0 = Parametrisation.of(scheduler(DDPMScheduler, kind)).predict_x0
    found = predict_x0(NOISE.to(dtype), LATENTS.to(dtype), TIMESTEPS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, predict_x0(NOISE, LATENTS, TIMESTEPS).float(), atol=0.5, rtol=0.05)


def test_a_schedule_that_ends_in_pure_noise() -> None:
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(LossError, match="v_prediction"):
        Parametrisation.of(DDIMScheduler(**config))
    last = Parametrisation.of(DDIMScheduler(**config, prediction_type="v_prediction"))
    v = normal(1, 4, 2, 2, seed=3)
    assert torch.equal(last.predict_x0(v, torch.zeros_like(v), torch.tensor([999])), -v)


def test_what_is_refused() -> None:
    with pytest.raises(LossError, match="FlowMatch"):
        Parametrisation.of(FlowMatchEulerDiscreteScheduler())
    with pytest.raises(LossError, match="flow_prediction"):
        Parametrisation(torch.tensor([0.9, 0.5]), "flow_prediction")
    with pytest.raises(LossError, match=r"\[0, 1\]"):
        Parametrisation(torch.tensor([1.5]))
    with pytest.raises(LossError, match="integers"):
        Parametrisation(torch.tensor([0.9, 0.5])).alpha_bar(torch.tensor([0.5]))
