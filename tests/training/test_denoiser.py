"""Stage one's step: what it computes, for which losses, and where its gradients go."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from idgen.errors import LossError, TrainingError
from idgen.training.batch import Batch
from idgen.training.config import LossConfig
from idgen.training.denoiser import face_mask
from tests.components import seeded

from .runs import LATENT, POINTS, RandomPeople, make_step

EVERYTHING = LossConfig(
    background_weight=0.5,
    identity=0.1,
    contrastive=0.1,
    t_max=1.0,
    preservation=0.1,
    background=0.1,
    layout=0.1,
    semantic=0.1,
    increment=0.1,
    values=0.01,
)


def run(step: Any, batch: Batch, backward: bool = True) -> Any:
    with ExitStack() as stack:
        found = step(batch, seeded(1), stack)
        if backward:
            found.total.backward()
    return found


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_denoising_is_the_published_loss(family: str) -> None:
    """Min-SNR-weighted error of ε, with the person's tokens in the UNet, written out."""
    step = make_step(family)
    batch = RandomPeople(2, xl=family == "sdxl").make(0)
    found = run(step, batch, backward=False).values
    random = seeded(1)
    t = torch.randint(1000, (2,), generator=random)
    noise = torch.randn(batch.latents.shape, generator=random)
    alpha = step.base.scheduler.alphas_cumprod[t]
    noisy = alpha.sqrt().view(-1, 1, 1, 1) * batch.latents + (1 - alpha).sqrt().view(-1, 1, 1, 1) * noise
    text = step.base.pipeline.encode_prompt(["a face"] * 2, "cpu", 1, False) if family == "sd" else None
    added = None
    if text is None:
        text = step.base.pipeline.encode_prompt(["a face"] * 2, device="cpu", do_classifier_free_guidance=False)
        added = {"text_embeds": text[2], "time_ids": batch.time_ids}
    with step.adapter.drawing([step.adapter.person(batch.id_embeds)], 2), torch.no_grad():
        output = step.base.unet(noisy, t, text[0], added_cond_kwargs=added).sample
    snr = alpha / (1 - alpha)
    expected = (output - noise).square().mean((1, 2, 3)) * snr.clamp(max=5) / snr
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_cached_text_is_read_instead_of_prompts(family: str) -> None:
    step = make_step(family, losses=LossConfig(preservation=0.1))
    batch = RandomPeople(2, xl=family == "sdxl").make(0)
    expected = run(step, batch, backward=False).values
    text = step.base.encode(batch.prompts)
    assert torch.equal(run(step, Batch(**{**vars(batch), **text}), backward=False).values, expected)
    other = {name: part + 1 for name, part in text.items()}
    assert not torch.equal(run(step, Batch(**{**vars(batch), **other})).values, expected)


def test_cached_text_does_not_hide_words() -> None:
    step = make_step(num_words=2)
    batch = RandomPeople(2, prompt="a <id> at sea").make(0)
    cached = Batch(**{**vars(batch), **step.base.encode(batch.prompts)})
    assert torch.equal(run(step, cached, backward=False).values, run(step, batch).values)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_losses_at_once(checkpointing: bool) -> None:
    step = make_step(losses=EVERYTHING)
    if checkpointing:
        step.base.unet.train()
        step.base.unet.enable_gradient_checkpointing()
    found = run(step, RandomPeople(3).make(0))
    assert set(found.terms) == {
        *("denoising", "identity", "contrastive", "preservation", "background"),
        *("layout", "semantic", "increment", "values"),
    }
    assert found.total.isfinite()
    assert int(found.terms["identity"].invalid) == 1
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in step.parameters())
    frozen = [step.base.unet, step.base.pipeline.vae, *step.base.text_encoders, step.embedder.encoder]
    assert all(weight.grad is None for module in frozen for weight in module.parameters())


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        step = make_step(losses=EVERYTHING)
        if checkpointing:
            step.base.unet.train()
            step.base.unet.enable_gradient_checkpointing()
        run(step, RandomPeople(2).make(0))
        gradients.append([weight.grad for weight in step.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-4, atol=1e-7)


def test_words_learn_from_prompts_that_name_the_person() -> None:
    step = make_step(losses=LossConfig(words=0.01), num_words=2)
    run(step, RandomPeople(2, prompt="a <id> at sea").make(0))
    assert all(weight.grad is not None and weight.grad.any() for weight in step.adapter.to_words.parameters())


def test_random_fusion_draws_each_case() -> None:
    plain, fused = make_step(), make_step(fusion=True)
    batch = RandomPeople(8).make(0)
    a, b = (run(step, batch, backward=False).values for step in (plain, fused))
    assert 0 < int((a == b).sum()) < 8


def test_only_the_adapter_is_trained() -> None:
    step = make_step()
    assert {id(w) for w in step.parameters()} == {id(w) for w in step.adapter.parameters()}
    assert all(name.startswith("adapter.") for name in step.state_dict())


def test_the_face_mask_is_around_the_landmarks() -> None:
    batch = RandomPeople(2).make(0)
    mask = face_mask(batch.landmarks / 2, batch.face_found, LATENT, LATENT)
    assert mask.shape == (2, 1, LATENT, LATENT)
    x, y = (POINTS / 2).round().long().unbind(-1)
    assert mask[0, 0, y, x].all()
    assert not mask[0, 0, 0].any()
    assert not mask[1].any()  # the second has no face


def test_batches_that_do_not_fit() -> None:
    batch = RandomPeople(2).make(0)
    with pytest.raises(TrainingError, match="equally long"):
        Batch(**{**vars(batch), "prompts": ("one",)})
    with pytest.raises(TrainingError, match="time_ids"):
        run(make_step("sdxl"), batch)
    step = make_step(losses=LossConfig(contrastive=0.1, t_max=1.0))
    with pytest.raises((LossError, RuntimeError)):
        run(step, Batch(**{**vars(batch), "target_embeds": torch.zeros(2, 5)}))
