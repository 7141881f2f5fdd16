"""Forgetting in the UNet: with a forgotten person, the adapter's LoRA learns the predictions for the anchor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from tqdm import tqdm

from ...adapter import IdentityAdapter, IdentityTokens
from ...training.base import BaseModel
from ...training.schedulers import with_schedule_of
from .rows import Rows
from .surgery import combined
from .tokens import KEEP_WEIGHT, TokenForgetting

LORA_RANK = 8
"""Rank of the LoRA that an adapter without one gets."""
BATCH = 4
DENOISING_STEPS = 8
"""Steps of the pictures whose beginnings are trained on."""
PROMPT_STEPS, PROMPT_REACH = 2, 0.1
"""Steps of the search over prompts, and its largest change, in deviations of the text embeddings."""


def forget_in_unet(
    pipeline: Any,
    adapter: IdentityAdapter,
    task: TokenForgetting,
    steps: int,
    prompts: Sequence[str],
    *,
    learning_rate: float = 1e-4,
    progress: bool = False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> IdentityAdapter:
    """Train projection and LoRA of an adapter until its predictions for forgotten people are those for the anchors.

    No pictures are needed: noisy latents are beginnings of pictures that the adapter draws of the person (ESD, arXiv
    2303.07345; data-free as in score forgetting distillation, arXiv 2409.11219). Half of the embeddings are
    found by a search for the tokens of the person. Each step also searches a small change of the text embeddings that
    brings back the original prediction, and trains on the changed prompt (AdvUnlearn). An adapter without a
    LoRA gets one.

    Args:
        pipeline: Pipeline of the base model, without an adapter. Its networks are frozen and stay so.
        adapter: The adapter after `forget`; it is not changed.
        task: What is forgotten.
        steps: Gradient steps.
        prompts: Prompts to train with.
        learning_rate: Learning rate of Adam.
        progress: Show a progress bar.
        on_step: Called after each step with the number of finished steps and of all steps.

    Returns:
        A new adapter, attached to no UNet.
    """
    base = BaseModel(pipeline, torch.float32, torch.device(pipeline.device))
    trained = _with_lora(adapter).float().to(base.unet.device)
    original = task.original
    trainable = [*trained.to_tokens.parameters(), *trained.to_words.parameters(), *trained.loras.parameters()]
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in trainable], learning_rate)
    step = _Step(base, original, trained, task, prompts)
    try:
        for each in (original, trained):
            each.attach(base.unet)
        for done in tqdm(range(steps), "Forgetting in the UNet", disable=not progress):
            combined(*step.loss(done % len(task.people)), trainable)
            optimizer.step()
            on_step(done + 1, steps)
    finally:
        for each in (original, trained):
            each.detach()
    kinds = {name: weight.dtype for name, weight in adapter.named_parameters()}
    for name, weight in trained.requires_grad_(False).named_parameters():
        weight.data = weight.data.to(kinds.get(name, adapter.dtype))
    return trained


class _Step:
    """One step: noisy latents of pictures of a person → losses of forgetting and keeping."""

    def __init__(
        self,
        base: BaseModel,
        original: IdentityAdapter,
        trained: IdentityAdapter,
        task: TokenForgetting,
        prompts: Sequence[str],
    ) -> None:
        self.base, self.original, self.trained, self.task, self.prompts = base, original, trained, task, prompts
        self.scheduler: Any = with_schedule_of(DDIMScheduler, base.pipeline.scheduler)
        side = base.unet.config.sample_size * base.pipeline.vae_scale_factor
        self.time_ids = torch.tensor([[side, side, 0, 0, side, side]] * BATCH, device=base.unet.device)

    def loss(self, whom: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared differences of predictions: for the person to the anchor's, for kept people to those before."""
        task, random = self.task, self.task.random
        found = task.search(self.trained, whom)[-BATCH // 2 :]
        person = Rows.cat([task.people[whom].draw(BATCH - len(found), task.kept, random), found])
        anchor = task.anchors[whom][[0] * BATCH]
        chosen = torch.randint(len(self.prompts), (BATCH,), generator=random)
        prompts = [self.prompts[int(i)] for i in chosen]
        noisy, t = self._begin(person, prompts)
        with torch.no_grad():
            goal = self._predict(self.original, person, prompts, noisy, t)
        change = self._find_prompt(person, prompts, noisy, t, goal)
        with torch.no_grad():
            wanted = self._predict(self.original, anchor, prompts, noisy, t, change)
        forget = F.mse_loss(self._predict(self.trained, person, prompts, noisy, t, change), wanted)
        others = task.outside(task.kept.draw(4 * BATCH, random))[:BATCH]
        if len(others) < BATCH:
            return forget, forget.new_zeros(())
        with torch.no_grad():
            before = self._predict(self.original, others, prompts, noisy, t)
        return forget, KEEP_WEIGHT * F.mse_loss(self._predict(self.trained, others, prompts, noisy, t), before)

    @torch.no_grad()
    def _begin(self, person: Rows, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of pictures of the person that are drawn up to a random step, and the timestep."""
        base, random, scheduler = self.base, self.task.random, self.scheduler
        side, channels = base.unet.config.sample_size, base.unet.config.in_channels
        scheduler.set_timesteps(DENOISING_STEPS, device=base.unet.device)
        latents = torch.randn(BATCH, channels, side, side, generator=random).to(base.unet.device)
        latents = latents * scheduler.init_noise_sigma
        last = int(torch.randint(len(scheduler.timesteps), (), generator=random))
        for t in scheduler.timesteps[:last]:
            read = scheduler.scale_model_input(latents, t)
            output = self._predict(self.trained, person, prompts, read, t.expand(BATCH))
            latents = scheduler.step(output, t, latents).prev_sample
        t = scheduler.timesteps[last]
        return scheduler.scale_model_input(latents, t), t.expand(BATCH)

    def _find_prompt(
        self, person: Rows, prompts: Sequence[str], noisy: torch.Tensor, t: torch.Tensor, goal: torch.Tensor
    ) -> torch.Tensor:
        """A change of the text embeddings with which the trained adapter predicts what the original one does."""
        with torch.no_grad():
            tokens = person.tokens(self.trained)
            text = self.base.encode(prompts, tokens)
        hidden = text["encoder_hidden_states"]
        limit = PROMPT_REACH * hidden.std()
        change = torch.zeros_like(hidden)
        for _ in range(PROMPT_STEPS):
            change.requires_grad_()
            output = self._read(self.trained, tokens, text, noisy, t, change)
            (slope,) = torch.autograd.grad(F.mse_loss(output, goal), change)
            change = (change.detach() - limit * slope.sign()).clamp(-limit, limit)
        return change

    def _predict(
        self,
        adapter: IdentityAdapter,
        rows: Rows,
        prompts: Sequence[str],
        noisy: torch.Tensor,
        t: torch.Tensor,
        change: torch.Tensor | None = None,
    ) -> torch.Tensor:
        tokens = rows.tokens(adapter)
        return self._read(adapter, tokens, self.base.encode(prompts, tokens), noisy, t, change)

    def _read(
        self,
        adapter: IdentityAdapter,
        tokens: IdentityTokens,
        text: dict[str, torch.Tensor],
        noisy: torch.Tensor,
        t: torch.Tensor,
        change: torch.Tensor | None,
    ) -> torch.Tensor:
        if change is not None:
            text = {**text, "encoder_hidden_states": text["encoder_hidden_states"] + change}
        with adapter.activate([tokens], len(noisy)):
            return self.base.predict(noisy, t, text, self.time_ids if "text_embeds" in text else None)


def _with_lora(adapter: IdentityAdapter) -> IdentityAdapter:
    """A copy of an adapter, with a new LoRA, which does nothing yet, if it has none."""
    rank = adapter.config["lora_rank"] or LORA_RANK
    copied = IdentityAdapter.from_config({**adapter.config, "lora_rank": rank})
    copied.load_state_dict(adapter.state_dict(), strict=False)
    return copied.eval()
