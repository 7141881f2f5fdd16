"""The step of stage one: its losses, its inputs and its gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from idgen.attributes import Direction
from idgen.errors import LossError, TrainingError
from idgen.losses import LOSSES, Weight
from idgen.training.batch import Batch
from idgen.training.config import LossConfig
from idgen.training.denoising_inputs import DenoisingInputs
from idgen.training.faces import face_mask
from idgen.training.randomness import lognormal_timesteps
from tests.components import seeded

from .runs import LATENT, POINTS, RandomPeople, make_step, run

EVERYTHING = LossConfig(
    weights=dict.fromkeys(LOSSES.rows, Weight(0.1)),
    background_weight=0.5,
    prior_dir="generated",
    older_adapter="older",
    styles=("pictures",),
)


def make_everything() -> Any:
    """A step with every loss that there is."""
    prior = torch.randn(5, 128, generator=seeded(9))
    return make_step(losses=EVERYTHING, words=2, prior=prior, edits=EVERYTHING.edits, older=True)


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
    with step.adapter.activate([step.adapter.encode(batch.id_embeds)], 2), torch.no_grad():
        output = step.base.unet(noisy, t, text[0], added_cond_kwargs=added).sample
    snr = alpha / (1 - alpha)
    expected = (output - noise).square().mean((1, 2, 3)) * snr.clamp(max=5) / snr
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_cached_text_is_read_instead_of_prompts(family: str) -> None:
    step = make_step(family, losses=LossConfig.only(preservation=0.1))
    batch = RandomPeople(2, xl=family == "sdxl").make(0)
    expected = run(step, batch, backward=False).values
    text = step.base.encode(batch.prompts)
    assert torch.equal(run(step, Batch(**{**vars(batch), **text}), backward=False).values, expected)
    other = {name: part + 1 for name, part in text.items()}
    assert not torch.equal(run(step, Batch(**{**vars(batch), **other})).values, expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_losses_at_once(checkpointing: bool) -> None:
    step = make_everything()
    if checkpointing:
        step.base.unet.train()
        step.base.unet.enable_gradient_checkpointing()
    found = run(step, RandomPeople(3, prompt="a <id> at sea").make(0))
    assert set(found.terms) == {*LOSSES.rows}
    assert found.total.isfinite()
    assert int(found.terms["identity"].invalid) == 1
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in step.parameters())
    frozen = [step.base.unet, step.base.pipeline.vae, *step.base.text_encoders, step.embedder.encoder]
    assert all(weight.grad is None for module in frozen for weight in module.parameters())


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        step = make_everything()
        if checkpointing:
            step.base.unet.train()
            step.base.unet.enable_gradient_checkpointing()
        run(step, RandomPeople(2, prompt="a <id> at sea").make(0))
        gradients.append([weight.grad for weight in step.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-4, atol=1e-7)


def test_offset_noise_is_one_number_a_channel() -> None:
    plain, offset = make_step(), make_step(noise_offset=0.1)
    seen = []
    for step in (plain, offset):
        step.base.scheduler.add_noise = lambda latents, noise, _: seen.append(noise) or latents + noise
        run(step, RandomPeople(2).make(0), backward=False)
    difference = seen[1] - seen[0]
    assert difference.std((2, 3)).max() < 1e-6
    assert difference.mean((2, 3)).unique().numel() == 8
    assert LossConfig().noise_offset == 0


def test_an_edit_is_compared_with_what_it_changes_without_the_person() -> None:
    step = make_step(losses=LossConfig.only(editing=1.0), edits=["smiling"])
    batch = RandomPeople(2).make(0)
    prompts, encode = [], step.base.encode

    def encode_edits(texts: Any, person: Any = None, *people: Any) -> Any:
        """The toy encoder reads all letters alike."""
        prompts.append(texts)
        shift = torch.randn(2, 1, 1, generator=seeded(3)) if "smiling" in texts[0] else 0
        return {name: part + shift for name, part in encode(texts, person, *people).items()}

    step.base.encode = encode_edits
    assert run(step, batch).terms["editing"].mean > 0
    assert prompts.count(("a face, smiling",) * 2) == 2  # with the person and without
    for weight in step.adapter.branches.parameters():
        weight.data.zero_()
    assert run(step, batch).terms["editing"].mean < 1e-4  # who adds nothing changes no edit


def test_random_fusion_draws_each_case() -> None:
    plain, fused = make_step(), make_step(fusion=True)
    batch = RandomPeople(8).make(0)
    a, b = (run(step, batch, backward=False).values for step in (plain, fused))
    assert 0 < int((a == b).sum()) < 8


def test_the_identity_is_active_until_the_step_is_left() -> None:
    """In the backward pass too, and also if that fails; a call that nothing would end is refused."""
    step, batch, times = make_step(), RandomPeople(2).make(0), torch.tensor([300, 300])
    text = step.base.encode(batch.prompts)

    def predict() -> torch.Tensor:
        with torch.no_grad():
            return step.predict(batch, batch.latents, times, text)

    expected = predict()
    with step.activate(batch, step.encode(batch)):
        with_id = predict()
    assert not torch.equal(with_id, expected)

    def fail() -> None:
        with step:
            step(batch, seeded(1))
            torch.testing.assert_close(predict(), with_id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(predict(), expected)
    with pytest.raises(TrainingError, match="inside `with step:`"):
        step(batch, seeded(1))
    assert torch.equal(predict(), expected)


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
    with pytest.raises(TrainingError, match="same length"):
        Batch(**{**vars(batch), "prompts": ("one",)})
    with pytest.raises(TrainingError, match="time_ids"):
        run(make_step("sdxl"), batch)
    step = make_step(losses=LossConfig.only(contrastive="0.1@1"))
    with pytest.raises((LossError, RuntimeError)):
        run(step, Batch(**{**vars(batch), "target_embeds": torch.zeros(2, 5)}))


def test_lognormal_timesteps_follow_their_distribution() -> None:
    """Shares of draws against the published probabilities, for a schedule of SD and one that ends in pure noise."""
    for alphas in (DDPMScheduler().alphas_cumprod, torch.tensor([0.99, 0.7, 0.4, 0.1, 0.0])):
        found = lognormal_timesteps(alphas, -1.1, 2.0, 50_000, seeded(0))
        levels = ((1 - alphas) / alphas).double().sqrt()
        erf = torch.erf((levels.log() + 1.1) / (2**0.5 * 2.0))
        expected = (erf[1:] - erf[:-1]) / (erf[-1] - erf[0])
        shares = torch.bincount(found, minlength=len(alphas)).double() / len(found)
        assert shares[-1] == 0
        torch.testing.assert_close(shares[:-1].cumsum(0), expected.cumsum(0), rtol=0, atol=0.01)
    step = make_step(lognormal=(-1.1, 2.0))
    alphas = step.base.parametrisation.alphas_cumprod
    assert torch.equal(step.draw_timesteps(9, seeded(1)), lognormal_timesteps(alphas, -1.1, 2.0, 9, seeded(1)))


def test_shares_of_mixtures_are_beta_distributed() -> None:
    """Beta(2, 2) has the mean 1/2 and the variance 1/20; it is drawn for each sample alone."""
    step, batch = make_step(losses=LossConfig.only(contrastive=0.1, mixup=0.4)), RandomPeople(4).make(0)
    drawn = torch.cat([DenoisingInputs(step, batch, seeded(i)).mixing for i in range(500)])
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(0.05, abs=0.005)
    alone = [seeded(i) for i in range(4)]
    both = DenoisingInputs(step, batch, alone).mixing
    parts = [DenoisingInputs(step, RandomPeople(1).make(0), [seeded(i)]).mixing for i in range(4)]
    assert torch.equal(both, torch.cat(parts))


def test_a_perfect_prediction_has_the_features_and_patches_of_the_target() -> None:
    """The target's face is decoded from its latents, so that the VAE's own error does not count."""
    step, batch = (
        make_step(losses=LossConfig.only(features="1@1", patches="1@1", identity="1@1")),
        RandomPeople(2).make(0),
    )
    inputs = DenoisingInputs(step, batch, seeded(0))
    inputs.predicted_latents = batch.latents.clone().requires_grad_(True)
    losses = {name: step.losses.terms[name].function for name in ("features", "patches")}
    for name, loss in losses.items():
        found = loss(inputs[f"generated_{name}"], inputs[f"target_{name}"])
        torch.testing.assert_close(found, torch.zeros(2), atol=1e-4, rtol=0)
    assert torch.equal(inputs.generated_embeds, step.embedder.encoder(inputs._faces.crops))
    other = DenoisingInputs(step, batch, seeded(0))
    other.predicted_latents = batch.latents.flip(0).clone().requires_grad_(True)
    for name, loss in losses.items():
        value = loss(other[f"generated_{name}"], other[f"target_{name}"])
        assert (value > 0.01).all()
        (slope,) = torch.autograd.grad(value.sum(), other.predicted_latents, retain_graph=True)
        assert slope.isfinite().all()
        assert slope.any()


def test_the_older_adapter_is_compared_with_at_the_same_noise() -> None:
    """With the weights of the trained adapter its faces are the same, and the relation loss is 0."""
    step, batch = make_step(losses=LossConfig.only(relation="1@1", older_adapter="older"), older=True), RandomPeople(2)
    with pytest.raises(TrainingError, match="relation loss compares with the faces of an older adapter"):
        make_step().older  # noqa: B018
    assert run(step, batch.make(0)).terms["relation"].mean > 1e-3
    step.older.load_state_dict(step.adapter.state_dict())
    assert run(step, batch.make(0)).terms["relation"].mean.abs() < 1e-6
    assert all(weight.grad is None for weight in step.older.parameters())
    assert not any(weight is other for weight in step.parameters() for other in step.older.parameters())
    config: Any = {"rollout": object(), "detector": object()}
    with pytest.raises(TrainingError, match="cannot be used with a rollout"):
        make_step(older=True, **config)


def test_an_unreliable_pair_has_less_weight_where_the_person_is_compared_with() -> None:
    batch = replace(RandomPeople(3).make(0), reliability=torch.tensor([0.25, 1.0, 1.0]))
    losses = LossConfig.only(identity="1@1")
    plain, weighed = make_step(losses=losses), make_step(losses=losses, reliability=True)
    values = [run(step, batch, backward=False) for step in (plain, weighed)]
    identity = run(make_step(losses=LossConfig.only(identity="1@1", denoising=0)), batch, backward=False).values
    torch.testing.assert_close(values[0].values[0] - values[1].values[0], 0.75 * identity[0])
    assert torch.equal(values[0].values[1:], values[1].values[1:])


def test_the_background_is_compared_with_moved_people() -> None:
    """With directions, the other identity is each person moved by a uniform amount; without any, a mixture."""
    axis = torch.randn(8, generator=seeded(3))
    direction = Direction(name="smile", encoder="test", axis=axis, step=0.1)
    step = make_step(losses=LossConfig.only(background=1.0), directions=[direction])
    batch = RandomPeople(2).make(0)
    inputs, encoded, encode = DenoisingInputs(step, batch, seeded(1)), [], step.encode
    step.encode = lambda other: encoded.append(other.id_embeds) or encode(other)
    assert inputs.output_mixed_id.shape == batch.latents.shape
    amounts = direction.value(encoded[0]) - direction.value(batch.id_embeds)
    assert torch.allclose(direction.move(batch.id_embeds, amounts), encoded[0], atol=1e-4)
    assert 0 < float(amounts.abs().max()) <= 1
    assert float((amounts[0] - amounts[1]).abs()) > 1e-3
