"""x0 in several steps, faces of a short rollout, and a LoRA that is active only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from idgen.errors import TrainingError
from idgen.losses import Parametrisation
from idgen.training.config import LossConfig
from idgen.training.rollout import DistilledLoRA, Rollout, ShortRollout, make_scheduler, predict_x0
from tests.components import make_pipeline, seeded

from .runs import RandomPeople, make_step
from .test_rollout import Everywhere

FACES = LossConfig.only(identity="1@1")


def evaluate(step: Any, backward: bool = True) -> Any:
    with step:
        found = step(RandomPeople(2).make(0), seeded(1))
        if backward:
            found.total.backward()
    return found


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_several_steps_are_those_of_ddim(kind: Literal["epsilon", "v_prediction"]) -> None:
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    parametrisation, noisy = Parametrisation.of(scheduler), torch.randn(2, 4, 8, 8, generator=seeded(0))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (x * 0.7).sin() + t.view(-1, 1, 1, 1) / 1000

    scheduler.set_timesteps(5)  # 800, 600, 400, 200, 0
    expected, found = noisy, None
    for t in (600, 400, 200):
        found = scheduler.step(predict(expected, torch.tensor([t])), t, expected)
        assert isinstance(found, DDIMSchedulerOutput)
        expected = found.prev_sample
    assert isinstance(found, DDIMSchedulerOutput)
    times = torch.full((2,), 600)
    x0 = predict_x0(parametrisation, predict, predict(noisy, times), noisy, times, 3)
    torch.testing.assert_close(x0, found.pred_original_sample, rtol=1e-4, atol=1e-5)
    one = predict_x0(parametrisation, predict, predict(noisy, times), noisy, times)
    assert torch.equal(one, parametrisation.predict_x0(predict(noisy, times), noisy, times))


def test_gradient_of_several_steps_is_that_of_finite_differences() -> None:
    parametrisation = Parametrisation(DDIMScheduler().alphas_cumprod.double())
    noisy, times = torch.randn(2, 1, 2, 2, generator=seeded(0)).double(), torch.tensor([0, 700])

    def x0_of(weight: torch.Tensor) -> torch.Tensor:
        def predict(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return (weight * x).tanh()

        return predict_x0(parametrisation, predict, predict(noisy, times), noisy, times, 3)

    weight = torch.rand(1, 1, 2, 2, generator=seeded(1)).double().requires_grad_(True)
    assert torch.autograd.gradcheck(x0_of, (weight,))


def test_the_denoiser_takes_several_steps() -> None:
    one, three = make_step(losses=FACES), make_step(losses=FACES, x0_steps=3)
    passes = []
    three.base.unet.register_forward_hook(lambda *_: passes.append(1))
    a, b = evaluate(one), evaluate(three)
    assert len(passes) == 3
    assert not torch.equal(a.values, b.values)
    assert all(weight.grad.isfinite().all() for weight in three.parameters())


def test_faces_where_the_detector_finds_them() -> None:
    told, found = make_step(losses=FACES), make_step(losses=FACES, detector=Everywhere())
    a, b = evaluate(told), evaluate(found)
    assert int(a.terms["identity"].invalid) == 1  # the second target has no face
    assert int(b.terms["identity"].invalid) == 0  # the prediction has
    torch.testing.assert_close(a.values[0], b.values[0], rtol=1e-4, atol=1e-5)  # the same place


def test_faces_of_a_short_rollout(tmp_path: Path) -> None:
    pipeline = make_pipeline()
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))

    def step_with(distilled: bool) -> Any:
        step = make_step(losses=FACES, detector=Everywhere())
        scheduler = make_scheduler("LCMScheduler", step.base.pipeline.scheduler)
        assert isinstance(scheduler, LCMScheduler)
        rollout = Rollout(scheduler=scheduler, method="draft", steps=2, last=2)
        lora = DistilledLoRA(step.base.pipeline, str(tmp_path)) if distilled else None
        step.rollout = ShortRollout(rollout=rollout, distilled=lora)
        return step

    plain, step = step_with(False), step_with(True)
    a, b = evaluate(plain), evaluate(step)
    assert torch.equal(a.terms["denoising"].sum, b.terms["denoising"].sum)  # off where it is not asked for
    assert a.terms["identity"].sum != b.terms["identity"].sum
    assert all(weight.grad is not None and weight.grad.any() for weight in step.adapter.to_tokens.parameters())
    assert not any(weight.requires_grad for weight in step.base.unet.parameters())
    with pytest.raises(TrainingError, match="could not be loaded"):
        DistilledLoRA(make_pipeline(), str(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="needs a detector"):
        make_step(losses=FACES, rollout=step.rollout)
    scheduler = plain.base.pipeline.scheduler
    with pytest.raises(TrainingError, match="no scheduler 'UNetScheduler'"):
        make_scheduler("UNetScheduler", scheduler)
    assert make_scheduler(None, scheduler) is scheduler
