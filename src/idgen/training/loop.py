"""The training loop: batches -> updates of the trained weights, with checkpoints, metrics and validation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..terminal import visible
from .batch import Batch, Batches
from .checkpoint import RunState, load_state, load_tensors, save_checkpoint
from .conflicts import ConflictingGradients
from .distributed import StopSignal, check_accumulation, on_main, whole_parameters, whole_tensor
from .loop_config import LoopConfig
from .optimization import (
    UpdateFilter,
    WeightAverage,
    load_optimizer,
    make_optimizer,
    make_schedule,
    optimizer_tensors,
)
from .optimizer_config import OptimizerConfig
from .randomness import generators
from .resume import check_unchanged, count_weights, find_checkpoint, locked, set_newer_aside
from .step import TrainingStep
from .tracking import METRICS, LossMeans, append_row, cut_rows, flatten, read_rows

LOSS_PART = "loss."
"""Prefix of the learned parts of losses among the tensors of a checkpoint."""


class Loop:
    """Train the modules of a training step.

    A run depends only on its configuration, its data and the number of the update. A run that was stopped, by a
    signal or a crash, and then resumed is therefore identical to one that was not.

    Args:
        step: Computes the losses of a batch.
        batches: Batches of this process; they are not sharded again.
        output_dir: Folder for the trained modules, checkpoints and metrics.
        config: Length of the run, checkpoints and logs.
        optimizer: Optimizer and learning rate.
        accelerator: Accelerator of the run; see `make_accelerator`.
        validate: Called with the number of updates after each checkpoint and at the end, on the main process, with
            the averaged weights in the modules if there is an average. Its metrics are logged.
        early_stopping: Called with `metrics.jsonl` after each validation; says whether to stop the run.
        run_settings: Further settings that define the run. A checkpoint with other settings is refused.

    Raises:
        TrainingError: The accelerator has another number of gradient accumulation steps than the run, or the gradients
            of sharded weights are to be combined otherwise than summed.
    """

    def __init__(
        self,
        step: TrainingStep,
        batches: Batches,
        output_dir: Path,
        config: LoopConfig,
        optimizer: OptimizerConfig,
        accelerator: Accelerator,
        validate: Callable[[int], dict[str, float]] | None = None,
        early_stopping: Callable[[Path], bool] | None = None,
        run_settings: Mapping[str, Any] | None = None,
    ) -> None:
        check_accumulation(accelerator, config)
        self.config, self.settings, self.output_dir = config, optimizer, output_dir
        self.accelerator, self.batches = accelerator, batches
        self.validate, self.early_stopping = validate, early_stopping
        self.trained = step
        weights = count_weights(step)
        self.plain = make_optimizer(optimizer, [weight for weight in step.parameters() if weight.requires_grad])
        # prepared together: DeepSpeed and FSDP shard the optimizer with the weights, and replace the weights
        self.step: Any
        self.optimizer: Any
        self.step, self.optimizer = accelerator.prepare(step, self.plain)
        self.parameters = [weight for weight in step.parameters() if weight.requires_grad]
        self.schedule = make_schedule(optimizer, self.plain, config.max_train_steps)
        self.average = WeightAverage(self.parameters, optimizer.ema_decay)
        self.filter = UpdateFilter(optimizer.explosion, config.max_bad_steps)
        self.conflicts = ConflictingGradients(optimizer.combine, self.parameters, accelerator)
        self.stop = StopSignal(accelerator)
        self.done = 0
        self._saved = 0
        self._metrics = output_dir / METRICS
        precision = {"mixed_precision": accelerator.mixed_precision}
        described = {"loop": asdict(config) | precision, "optimizer": asdict(optimizer), "trained weights": weights}
        self._run_settings = flatten({**(run_settings or {}), **described})

    def run(self) -> int:
        """Train until the end or a signal, and save the modules to `output_dir`; returns the number of updates.

        Raises:
            TrainingError: Too many updates in a row have a gradient that is not finite or explodes.
        """
        with locked(self.output_dir):
            self._resume()
            begun = self.done
            with self.stop.handled():
                self._train()
            if self.done > self._saved:
                self.save()
            if self.done:
                with self.average.applied(), whole_parameters(self.trained):
                    if self.accelerator.is_main_process:
                        self.trained.save(self.output_dir)
            self._say(_summary(begun, self.done, self.config.max_train_steps))
        return self.done

    def _train(self) -> None:
        total = self.config.max_train_steps
        with tqdm(total=total, initial=self.done, disable=not self.accelerator.is_main_process) as bar:
            stream = iter(self.batches)
            while self.done < total and not (self.trained.at_rest and self.stop.seen_by_any()):
                metrics = self.update(stream)
                self.done += 1
                self.schedule.step()
                bar.update()
                bar.set_postfix(self._shown(metrics))
                self._log(metrics)
                if self.done % self.config.checkpointing_steps == 0:
                    self.save()

    def update(self, stream: Iterator[Batch]) -> dict[str, float]:
        """Update the weights once; returns the means of the losses, the gradient norm and the learning rate."""
        start = time.perf_counter()
        losses = LossMeans(self.accelerator)
        for part in range(self.config.gradient_accumulation_steps):
            batch = next(stream).to(self.accelerator.device)
            with self.accelerator.accumulate(self.step), self.trained:
                with self.accelerator.autocast():
                    found = self.step(batch, self._random(part, len(batch)))
                self.conflicts.add(found.identity)
                self.accelerator.backward(found.total)  # divides by the number of passes
            losses.add(found)
        combined = self.conflicts.combine()
        clipped = self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        norm = float(whole_tensor(torch.as_tensor(clipped)))
        self._apply(norm)
        seconds = time.perf_counter() - start
        rate = float(self.schedule.get_last_lr()[0])
        return {**losses.means(), **combined, "norm": norm, "lr": rate, "seconds": seconds}

    def _apply(self, norm: float) -> None:
        """Update the weights unless the filter rejects the gradient."""
        accepted = self.filter(norm)
        if not accepted and math.isfinite(norm):
            self.optimizer.zero_grad()
        if accepted or self.accelerator.scaler is not None:  # fp16's scaler must see gradients that are not finite
            self.optimizer.step()
        if accepted:
            self.average.update()
        self.optimizer.zero_grad()

    def _random(self, part: int, samples: int) -> list[torch.Generator]:
        """Generators for the samples of one pass of one process. They do not depend on earlier updates, nor on how
        the samples of an update are divided into passes."""
        place = part * self.accelerator.num_processes + self.accelerator.process_index
        return generators(self.config.seed, self.done, place * self.config.train_batch_size, samples)

    def _shown(self, metrics: dict[str, float]) -> dict[str, str]:
        """The metrics shown in the progress bar: the losses, the total first."""
        names = ["loss", *(name for name in metrics if name not in ("loss", "norm", "seconds") and "/" not in name)]
        skipped = {"skipped": str(self.filter.rejected)} if self.filter.rejected else {}
        return {**{name: f"{metrics[name]:.3g}" for name in names if name in metrics}, **skipped}

    def _log(self, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            append_row(self._metrics, {"step": self.done, **metrics, "skipped": self.filter.rejected})
        self.accelerator.log(metrics, step=self.done)

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    # -- checkpoints

    def save(self) -> None:
        """Write a checkpoint and validate."""
        tensors, optimizer = optimizer_tensors(self.optimizer)
        tensors |= self.average.tensors()
        state = RunState(
            step=self.done,
            settings=self._run_settings,
            optimizer=optimizer,
            scaler=self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            data=self.batches.state_dict(),
            skipped=self.filter.rejected,
            bad=self.filter.in_a_row,
            norms=(self.filter.total, self.filter.seen),
            ema_steps=self.average.updates,
        )
        with whole_parameters(self.trained):
            tensors |= {LOSS_PART + name: part for name, part in self.trained.loss_parts.state_dict().items()}
            limit = self.config.checkpoints_total_limit
            on_main(save_checkpoint, self.output_dir, self.trained, tensors, state, limit)
        self._saved = self.done
        self._validate()

    def _validate(self) -> None:
        """Validate, and stop the run if early stopping says so."""
        if self.validate is None:
            return
        with self.average.applied(), whole_parameters(self.trained):
            if self.accelerator.is_main_process:
                self._log(self.validate(self.done))
        if self.accelerator.is_main_process and self.early_stopping is not None and self.early_stopping(self._metrics):
            self.stop.requested = True
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        start = on_main(find_checkpoint, self.output_dir, self.config.resume_from_checkpoint)
        if start is None:
            on_main(cut_rows, self._metrics, 0)  # an earlier run ended before its first checkpoint
            return
        state = load_state(start)
        check_unchanged(state.settings, self._run_settings, str(start))
        on_main(set_newer_aside, self.output_dir, start, state.step)
        on_main(cut_rows, self._metrics, state.step)
        self._load(start, state)
        self._say(visible(f"Resuming from {start}."))
        if not on_main(self._is_validated):  # the run ended between the checkpoint and its validation
            self._validate()

    def _is_validated(self) -> bool:
        return any(row["step"] == self.done and "norm" not in row for row in read_rows(self._metrics))

    def _load(self, checkpoint: Path, state: RunState) -> None:
        tensors = load_tensors(checkpoint)
        parts = {name.removeprefix(LOSS_PART): part for name, part in tensors.items() if name.startswith(LOSS_PART)}
        with whole_parameters(self.trained, write=True):
            self.trained.load(checkpoint)
            self.trained.loss_parts.load_state_dict(parts)
        load_optimizer(self.optimizer, tensors, state.optimizer)
        self.schedule = make_schedule(self.settings, self.plain, self.config.max_train_steps, state.step)
        self.batches.load_state_dict(state.data)
        self.done = self._saved = state.step
        self.filter.rejected, self.filter.in_a_row = state.skipped, state.bad
        self.filter.total, self.filter.seen = state.norms
        self.average.load(tensors, state.ema_steps)
        if self.accelerator.scaler is not None and state.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)


def _summary(begun: int, done: int, total: int) -> str:
    """The last line of a run that began at update `begun` and ended at update `done`."""
    if not done:
        return "Stopped before the first update: nothing is saved."
    if done < total:
        return f"Stopped after {done} of {total} updates. Resume with --resume_from_checkpoint latest."
    if done == begun:
        return f"All {total} updates were done already: nothing was trained."
    return f"Trained {done} updates, {done - begun} of them now."
