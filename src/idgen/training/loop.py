"""The loop: batches → updates of what a step trains, with checkpoints, metrics, and an end that loses nothing."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..errors import TrainingError
from ..terminal import visible
from .accelerator import check_accumulation
from .average import Average
from .batch import Batch, Batches
from .checkpoint import RunState, load_state, load_tensors, save_checkpoint
from .config import LoopConfig, OptimizerConfig
from .explosion import NormWatch
from .folder import find_start, leave_behind, locked, on_main
from .hacking import HackingGuard
from .metrics import NAME as METRICS
from .metrics import append_row, cut_rows, read_rows
from .optimizers import load_optimizer, make_optimizer, make_schedule, optimizer_tensors
from .randomness import generators
from .settings import check_unchanged, count_weights, flatten
from .sharded import whole_parameters, whole_tensor
from .step import TrainingStep
from .totals import Totals


class Loop:
    """Train the parts of a step: an adapter, a LoRA, an IdentityNet.

    What a run computes follows from its configuration, its data and the number of the update alone, so that a run that
    was stopped, by a signal or a crash, goes on as if it never had been.

    Args:
        step: Makes losses of batches; see `TrainingStep`.
        batches: Of this process; they are not sharded again.
        output_dir: Where checkpoints and metrics go.
        config: How long and how often.
        optimizer: How they learn.
        validate: Called with the number of updates after each checkpoint and at the end, on the main process, while
            the parts hold the averaged weights if there are any.
        accelerator: Of the run; see `make_accelerator`. It divides the loss by the number of passes for an update.
        guard: Warns, and ends the run, when the similarity that is trained on rises while another one falls.
        run_settings: What else defines the run, by name. A checkpoint of other settings is refused.

    Raises:
        TrainingError: The accelerator is configured for another number of passes than the run.
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
        guard: HackingGuard | None = None,
        run_settings: Mapping[str, Any] | None = None,
    ) -> None:
        check_accumulation(accelerator, config)
        self.config, self.settings, self.output_dir = config, optimizer, output_dir
        self.accelerator, self.batches, self.validate, self.guard = accelerator, batches, validate, guard
        self.trained = step
        sizes = count_weights(step)
        self.plain = make_optimizer(optimizer, [weight for weight in step.parameters() if weight.requires_grad])
        # the two together: DeepSpeed and FSDP split the optimizer with the weights, which are others afterwards
        self.step: Any
        self.optimizer: Any
        self.step, self.optimizer = accelerator.prepare(step, self.plain)
        self.parameters = [weight for weight in step.parameters() if weight.requires_grad]
        self.schedule = make_schedule(optimizer, self.plain, config.max_train_steps)
        self.average = Average(self.parameters, optimizer.ema_decay)
        self.done = 0
        self._bad, self._skipped = 0, 0
        self._norms = NormWatch(optimizer.explosion)
        self._stop = False
        self._saved = 0
        self._metrics = output_dir / METRICS
        precision = {"mixed_precision": accelerator.mixed_precision}
        described = {"loop": asdict(config) | precision, "optimizer": asdict(optimizer), "trained weights": sizes}
        self._run_settings = flatten({**(run_settings or {}), **described})

    def run(self) -> int:
        """Train to the end, or to a signal; returns the number of updates. The parts are in `output_dir` after it.

        Raises:
            TrainingError: The loss is not finite, or explodes, in too many updates in a row.
        """
        with locked(self.output_dir):
            self._resume()
            begun = self.done
            with self._signals():
                self._train()
            if self.done > self._saved:
                self.save()
            if self.done:
                with self.average.applied(), whole_parameters(self.trained):
                    if self.accelerator.is_main_process:
                        self.trained.save(self.output_dir)
            self._say_end(begun)
        return self.done

    def _train(self) -> None:
        total = self.config.max_train_steps
        with tqdm(total=total, initial=self.done, disable=not self.accelerator.is_main_process) as bar:
            stream = iter(self.batches)
            while self.done < total and not (self.trained.at_rest and self._stopping()):
                metrics = self.update(stream)
                self.done += 1
                self.schedule.step()
                bar.update()
                bar.set_postfix(self._shown(metrics))
                self._record(metrics)
                if self.done % self.config.checkpointing_steps == 0:
                    self.save()

    def update(self, stream: Iterator[Batch]) -> dict[str, float]:
        """One update of the weights."""
        start = time.perf_counter()
        totals = Totals(self.accelerator)
        for part in range(self.config.gradient_accumulation_steps):
            batch = next(stream).to(self.accelerator.device)
            with self.accelerator.accumulate(self.step), self.trained:
                with self.accelerator.autocast():
                    found = self.step(batch, self._random(part, len(batch)))
                self.accelerator.backward(found.total)  # which divides by the number of passes
            totals.add(found)
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        norm = whole_tensor(norm)
        finite = bool(norm.isfinite())
        good = finite and self._norms(float(norm))
        if not good and finite:
            self.optimizer.zero_grad()
        if good or self.accelerator.scaler is not None:  # fp16's scaler skips what is not finite, and learns from it
            self.optimizer.step()
        if good:
            self.average.update()
        self.optimizer.zero_grad()
        self._count_bad(good)
        seconds = time.perf_counter() - start
        return {**totals.means(), "norm": float(norm), "lr": self.schedule.get_last_lr()[0], "seconds": seconds}

    def _random(self, part: int, samples: int) -> list[torch.Generator]:
        """The random numbers of one pass of one process, sample by sample; they do not depend on what came before, nor
        on how the samples of an update are divided into passes."""
        place = part * self.accelerator.num_processes + self.accelerator.process_index
        return generators(self.config.seed, self.done, place * self.config.train_batch_size, samples)

    def _count_bad(self, good: bool) -> None:
        """Gradients are summed over the processes, so all of them see the same."""
        self._bad = 0 if good else self._bad + 1
        self._skipped += not good
        if self._bad > self.config.max_bad_steps:
            raise TrainingError(
                f"The loss was not finite, or exploded, in {self._bad} updates in a row, up to update {self.done}: "
                f"lower the learning rate, or go on from a checkpoint in '{self.output_dir}' with another seed."
            )

    def _shown(self, metrics: dict[str, float]) -> dict[str, str]:
        """What stands beside the progress bar: the losses, the whole first; the rest is in `metrics.jsonl`."""
        names = ["loss", *(name for name in metrics if name not in ("loss", "norm", "seconds") and "/" not in name)]
        skipped = {"skipped": str(self._skipped)} if self._skipped else {}
        return {**{name: f"{metrics[name]:.3g}" for name in names if name in metrics}, **skipped}

    def _record(self, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            append_row(self._metrics, {"step": self.done, **metrics, "skipped": self._skipped})
        self.accelerator.log(metrics, step=self.done)

    # -- stopping and going on

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
            skipped=self._skipped,
            bad=self._bad,
            norms=(self._norms.total, self._norms.seen),
            ema_steps=self.average.updates,
        )
        with whole_parameters(self.trained):
            limit = self.config.checkpoints_total_limit
            on_main(save_checkpoint, self.output_dir, self.trained, tensors, state, limit)
        self._saved = self.done
        self._measure()

    def _measure(self) -> None:
        """Validate; told to by the guard, end the run."""
        if self.validate is None:
            return
        with self.average.applied(), whole_parameters(self.trained):
            if self.accelerator.is_main_process:
                self._record(self.validate(self.done))
        if self.accelerator.is_main_process and self.guard is not None and self.guard(self._metrics):
            self._stop = True
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        start = on_main(find_start, self.output_dir, self.config.resume_from_checkpoint)
        if start is None:
            on_main(cut_rows, self._metrics, 0)  # the run ended before its first checkpoint
            return
        state = load_state(start)
        check_unchanged(state.settings, self._run_settings, str(start))
        on_main(leave_behind, self.output_dir, start, state.step)
        on_main(cut_rows, self._metrics, state.step)
        self._load(start, state)
        if self.accelerator.is_main_process:
            tqdm.write(visible(f"Going on from {start}."), file=sys.stderr)
        if not on_main(self._is_measured):  # the run ended between the checkpoint and its validation
            self._measure()

    def _is_measured(self) -> bool:
        return any(row["step"] == self.done and "norm" not in row for row in read_rows(self._metrics))

    def _load(self, checkpoint: Path, state: RunState) -> None:
        tensors = load_tensors(checkpoint)
        with whole_parameters(self.trained, write=True):
            self.trained.load(checkpoint)
        load_optimizer(self.optimizer, tensors, state.optimizer)
        self.schedule = make_schedule(self.settings, self.plain, self.config.max_train_steps, state.step)
        self.batches.load_state_dict(state.data)
        self.done = self._saved = state.step
        self._skipped, self._bad = state.skipped, state.bad
        self._norms.total, self._norms.seen = state.norms
        self.average.load(tensors, state.ema_steps)
        if self.accelerator.scaler is not None and state.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)

    def _say_end(self, begun: int) -> None:
        done, total = self.done, self.config.max_train_steps
        if not done:
            said = "Stopped before the first update: nothing is saved."
        elif done < total:
            said = f"Stopped after {done} of {total} updates; --resume_from_checkpoint latest goes on from there."
        elif done == begun:
            said = f"The run has done {done} updates already, of {total}: nothing was trained."
        else:
            said = f"Trained {done} updates, {done - begun} of them now."
        if self.accelerator.is_main_process:
            tqdm.write(said, file=sys.stderr)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the update that is under way; a second one ends it at once."""

        def stop(number: int, _: Any) -> None:
            self._stop = True
            signal.signal(number, before[signal.Signals(number)])

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stopping(self) -> bool:
        """Whether any process was told to stop: all end after the same update."""
        if self.accelerator.num_processes == 1:
            return self._stop
        flag = torch.tensor(int(self._stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)  # pyright: ignore[reportOperatorIssue]
