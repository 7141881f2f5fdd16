"""One training step with everything in it, on idgen-tiny: how the pieces fit, and the gradient of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from idgen import IdentityAdapter
from idgen.faces import DLIB_TEMPLATE
from idgen.losses import (
    AttentionRecorder,
    Bank,
    ContrastiveLoss,
    Decay,
    DenoisingLoss,
    FaceDecoder,
    FaceEmbedder,
    Parametrisation,
    Term,
    UpTo,
    Weighted,
    WeightedTerms,
    background_loss,
    identity_loss,
    increment_loss,
    layout_alignment_loss,
    mix_identities,
    value_regulariser,
)
from idgen.tiny import load_tiny_base

from .inputs import normal


class Step:
    """Three people; the first is too noisy for the identity losses, and the last has no face."""

    def __init__(self) -> None:
        pipeline: Any = load_tiny_base()
        self.unet = pipeline.unet.double().requires_grad_(False)
        self.parametrisation = Parametrisation.of(pipeline.scheduler)
        self.decoder = FaceDecoder(vae=pipeline.vae.double().requires_grad_(False), margin=2)
        self.embedder = FaceEmbedder.dlib()
        self.embedder.encoder.double()
        torch.manual_seed(0)
        self.adapter = IdentityAdapter.from_unet(self.unet, encoder="dlib-resnet-v1", embedding_dim=128).double()
        for branch in self.adapter.branches.values():
            torch.nn.init.normal_(branch.to_v.weight, std=0.1)  # pyright: ignore
        self.adapter.attach(self.unet)
        self.timesteps = torch.tensor([900, 250, 100])
        self.latents, self.noise = normal(3, 16, 16, 16, seed=1), normal(3, 16, 16, 16, seed=2)
        self.id_embeds = normal(3, 128, seed=3)
        self.landmarks = torch.from_numpy(DLIB_TEMPLATE * 40 / 150 + 12).expand(3, -1, -1)
        face_mask = torch.zeros(3, 1, 16, 16)
        face_mask[..., 3:13, 3:13] = 1
        self.batch: dict[str, Any] = {
            "latents": self.latents,
            "noise": self.noise,
            "timesteps": self.timesteps,
            "face_mask": face_mask,
            "face_found": torch.tensor([True, True, False]),
            "target_embeds": normal(3, 128, seed=4),
            "persons": torch.arange(3),
            "negatives": Bank(normal(20, 128, seed=5), torch.arange(100, 120)),
        }
        self.losses = WeightedTerms(
            {
                "denoising": Term(DenoisingLoss(parametrisation=self.parametrisation, snr_gamma=5.0)),
                "identity": Term(identity_loss, 0.1, UpTo(0.6), "face_found"),
                "contrastive": Term(ContrastiveLoss(), 0.1, Decay(), "face_found"),
                "background": Term(background_loss, 1.0),
                "layout": Term(layout_alignment_loss, 0.1),
                "increment": Term(increment_loss, 0.1),
                "values": Term(value_regulariser, 0.001),
            }
        )

        alpha_bar = self.parametrisation.alpha_bar(self.timesteps).view(-1, 1, 1, 1).double()
        self.noisy = alpha_bar.sqrt() * self.latents + (1 - alpha_bar).sqrt() * self.noise
        with torch.no_grad(), AttentionRecorder(self.unet) as recorder:
            self.predict()
            self.batch["without_id"] = recorder.take()
            u = torch.rand(len(self.id_embeds), generator=torch.Generator().manual_seed(0))
            mixed = mix_identities(self.id_embeds, u)
            with self.adapter.activate([self.adapter.encode(mixed)], num_images=3):
                self.batch["output_mixed_id"] = self.predict()

    def predict(self) -> torch.Tensor:
        text = normal(3, 6, 128, seed=6)
        return self.unet(self.noisy, self.timesteps, encoder_hidden_states=text).sample

    def __call__(self, then: Callable[[Weighted], object]) -> Weighted:
        person = self.adapter.encode(self.id_embeds)
        with self.adapter.activate([person], num_images=3), AttentionRecorder(self.unet) as recorder:
            model_output = self.predict()

            x0 = self.parametrisation.predict_x0(model_output, self.noisy, self.timesteps)
            images, offsets = self.decoder(x0, self.embedder.boxes(self.landmarks))
            made = {
                "generated_embeds": self.embedder(images, self.landmarks - offsets[:, None]),
                "model_output": model_output,
                "with_id": recorder.take(),
                "identity_values": [branch.to_v(person.tokens) for branch in self.adapter.branches.values()],  # pyright: ignore
            }
            out = self.losses(self.batch | made, self.timesteps)
            then(out)  # while the identity is drawn, so that a UNet with checkpointing can run its layers again
        return out


@pytest.fixture(scope="module")
def step() -> Step:
    return Step()


def test_samples_that_count_for_each_term(step: Step) -> None:
    with torch.no_grad():
        out = step(lambda _: None)
    counted = {name: (int(log.samples), int(log.invalid)) for name, log in out.terms.items()}
    assert counted.pop("identity") == (1, 1)  # the first is gated, the last has no face
    assert counted.pop("contrastive") == (2, 1)
    assert set(counted.values()) == {(3, 0)}
    assert all(log.mean > 0 for log in out.terms.values())
    assert out.values.isfinite().all()


def test_the_gradient_of_a_new_adapter_is_finite(step: Step) -> None:
    values = [branch.get_parameter("to_v.weight") for branch in step.adapter.branches.values()]
    kept = [weight.detach().clone() for weight in values]
    for weight in values:
        torch.nn.init.zeros_(weight)
    step.adapter.zero_grad()
    step(lambda out: out.total.backward())
    found = [p.grad for p in step.adapter.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in found)
    assert all(weight.grad is not None and weight.grad.any() for weight in values)
    for weight, before in zip(values, kept, strict=True):
        weight.data.copy_(before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_the_whole_is_that_of_finite_differences(step: Step, checkpointing: bool) -> None:
    """In the adapter's weights; also with the UNet's gradient checkpointing."""
    if checkpointing:
        step.unet.train()
        step.unet.enable_gradient_checkpointing()
    weights = [
        p for n, p in step.adapter.named_parameters() if "to_k" in n or "to_v" in n or n.endswith("proj.0.bias")
    ]
    step.adapter.zero_grad()
    step(lambda out: out.total.backward())
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
    gradients = [p.grad for p in weights]
    found = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None), torch.zeros(()))
    assert all(g is not None and g.any() for g in gradients)
    totals = []
    with torch.no_grad():
        for move in (1e-7, -2e-7):  # so small that hardly a rectifier of the face encoder turns
            for weight, direction in zip(weights, directions, strict=True):
                weight += move * direction
            totals.append(step(lambda _: None).total)
    torch.testing.assert_close(found, (totals[0] - totals[1]) / 2e-7, rtol=1e-6, atol=0, check_dtype=False)
