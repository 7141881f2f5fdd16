"""The loop: batches → updates of what a step trains, with checkpoints, metrics, and an end that loses nothing."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from ..errors import TrainingError
from ..losses import TermLog, Weighted
from .accelerator import check_accumulation
from .batch import Batch, Batches
from .checkpoint import find_checkpoint, load_checkpoint, load_optimizer, optimizer_tensors, save_checkpoint
from .config import LoopConfig, OptimizerConfig
from .explosion import NormWatch
from .hacking import HackingGuard
from .optimizers import make_optimizer
from .randomness import generators
from .sharded import split_like, whole_parameters, whole_tensor
from .step import TrainingStep


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
    ) -> None:
        check_accumulation(accelerator, config)
        self.config, self.settings, self.output_dir = config, optimizer, output_dir
        self.accelerator, self.batches, self.validate, self.guard = accelerator, batches, validate, guard
        self.trained = step
        plain = make_optimizer(optimizer, [weight for weight in step.parameters() if weight.requires_grad])
        # the two together: DeepSpeed and FSDP split the optimizer with the weights, which are others afterwards
        self.step: Any
        self.optimizer: Any
        self.step, self.optimizer = accelerator.prepare(step, plain)
        self.parameters = [weight for weight in step.parameters() if weight.requires_grad]
        self.schedule: Any = get_scheduler(
            optimizer.lr_scheduler,
            plain,  # not the prepared one: accelerate would step the schedule once for each process
            num_warmup_steps=optimizer.lr_warmup_steps,
            num_training_steps=config.max_train_steps,
        )
        self.ema = EMAModel(self.parameters, decay=optimizer.ema_decay) if optimizer.ema_decay else None
        self.done = 0
        self._bad, self._skipped = 0, 0
        self._norms = NormWatch(optimizer.explosion)
        self._stop = False

    def run(self) -> int:
        """Train to the end, or to a signal; returns the number of updates. The parts are in `output_dir` after it.

        Raises:
            TrainingError: The loss is not finite, or explodes, in too many updates in a row.
        """
        self._resume()
        main = self.accelerator.is_main_process
        with self._signals(), tqdm(total=self.config.max_train_steps, initial=self.done, disable=not main) as bar:
            stream = iter(self.batches)
            while self.done < self.config.max_train_steps and not self._stopping():
                metrics = self.update(stream)
                self.done += 1
                self.schedule.step()
                bar.update()
                bar.set_postfix(self._shown(metrics))
                self._record(metrics)
                if self.done % self.config.checkpointing_steps == 0:
                    self.save()
        if self.done % self.config.checkpointing_steps:
            self.save()
        with self._averaged(), whole_parameters(self.trained):
            if main:
                self.trained.save(self.output_dir)
        return self.done

    def update(self, stream: Iterator[Batch]) -> dict[str, float]:
        """One update of the weights."""
        start = time.perf_counter()
        totals: dict[str, torch.Tensor] = {}
        for part in range(self.config.gradient_accumulation_steps):
            batch = next(stream).to(self.accelerator.device)
            with self.accelerator.accumulate(self.step), ExitStack() as stack:
                with self.accelerator.autocast():
                    found = self.step(batch, self._random(part, len(batch)), stack)
                self.accelerator.backward(found.total)  # which divides by the number of passes
            _add(totals, found, self.accelerator.device)
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        norm = whole_tensor(norm)
        finite = bool(norm.isfinite())
        good = finite and self._norms(float(norm))
        if not good and finite:
            self.optimizer.zero_grad()
        if good or self.accelerator.scaler is not None:  # fp16's scaler skips what is not finite, and learns from it
            self.optimizer.step()
        if good and self.ema is not None:
            self.ema.step(self.parameters)
        self.optimizer.zero_grad()
        self._count_bad(good)
        seconds = time.perf_counter() - start
        return {**self._means(totals), "norm": float(norm), "lr": self.schedule.get_last_lr()[0], "seconds": seconds}

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

    def _means(self, totals: dict[str, torch.Tensor]) -> dict[str, float]:
        """Sums over passes and processes → means by term, and the share that had no face."""
        names = sorted(totals)
        summed = self.accelerator.reduce(torch.stack([totals[name] for name in names]), "sum")
        sums = dict(zip(names, summed.tolist(), strict=True))  # pyright: ignore[reportAttributeAccessIssue]
        means = {}
        for name in {name.rsplit("/", 1)[0] for name in names}:
            if sums[f"{name}/samples"]:
                means[name] = sums[f"{name}/sum"] / sums[f"{name}/samples"]
            if sums[f"{name}/invalid"]:
                counted = sums[f"{name}/samples"] + sums[f"{name}/invalid"]
                means[f"{name}/no_face"] = sums[f"{name}/invalid"] / counted
        return {name: means[name] for name in sorted(means)}

    def _shown(self, metrics: dict[str, float]) -> dict[str, str]:
        """What stands beside the progress bar: the losses, the whole first; the rest is in `metrics.jsonl`."""
        names = ["loss", *(name for name in metrics if name not in ("loss", "norm", "seconds") and "/" not in name)]
        skipped = {"skipped": str(self._skipped)} if self._skipped else {}
        return {**{name: f"{metrics[name]:.3g}" for name in names if name in metrics}, **skipped}

    def _record(self, metrics: dict[str, float], **more: Any) -> None:
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            with (self.output_dir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": self.done, **metrics, **more, "skipped": self._skipped}) + "\n")
        self.accelerator.log(metrics, step=self.done)

    # -- stopping and going on

    def save(self) -> None:
        """Write a checkpoint and validate."""
        positions = self.accelerator.num_processes
        if positions > 1:
            from accelerate.utils import gather_object

            data = gather_object([self.batches.state_dict()])
        else:
            data = [self.batches.state_dict()]
        main = self.accelerator.is_main_process
        tensors, optimizer = optimizer_tensors(self.optimizer)
        if self.ema is not None:
            tensors |= {f"ema.{i}": whole_tensor(weight) for i, weight in enumerate(self.ema.shadow_params)}
        state = {"optimizer": optimizer, "schedule": self.schedule.state_dict(), "data": data}
        state |= {"skipped": self._skipped, "ema_steps": self.ema.optimization_step if self.ema else 0}
        state |= {"norms": [self._norms.total, self._norms.seen]}
        with whole_parameters(self.trained):
            if main:
                limit = self.config.checkpoints_total_limit
                save_checkpoint(self.output_dir, self.done, self.trained, tensors, state, limit)
        if self.validate is not None:
            with self._averaged(), whole_parameters(self.trained):
                if main:
                    self._record(self.validate(self.done))
            if main and self.guard is not None and self.guard(self.output_dir / "metrics.jsonl"):
                self._stop = True
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        folder = find_checkpoint(self.output_dir, self.config.resume_from_checkpoint)
        if folder is None:
            return
        tensors, state = load_checkpoint(folder)
        if len(state["data"]) != self.accelerator.num_processes:
            raise TrainingError(
                f"'{folder}' is of {len(state['data'])} processes; the data goes on exactly only with as many, not "
                f"{self.accelerator.num_processes}."
            )
        with whole_parameters(self.trained, write=True):
            self.trained.load(folder)
        load_optimizer(self.optimizer, tensors, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.batches.load_state_dict(state["data"][self.accelerator.process_index])
        self.done, self._skipped = state["step"], state["skipped"]
        self._norms.total, self._norms.seen = state.get("norms", (0.0, 0))  # of checkpoints that had none
        if self.ema is not None:
            self.ema.shadow_params = [split_like(tensors[f"ema.{i}"], w) for i, w in enumerate(self.parameters)]
            self.ema.optimization_step = state["ema_steps"]
        if self.accelerator.is_main_process:
            tqdm.write(f"Going on from {folder}.", file=sys.stderr)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The parts with averaged weights."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

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


def _add(totals: dict[str, torch.Tensor], found: Weighted, device: torch.device) -> None:
    """Add up what each term did, on one device; sums, so that passes and processes can be added."""
    size = torch.tensor(float(len(found.values)), device=found.values.device)
    logs = {**found.terms, "loss": TermLog(found.values.detach().sum(), size, torch.zeros_like(size))}
    for name, log in logs.items():
        for part in ("sum", "samples", "invalid"):
            value = getattr(log, part).to(device, torch.float32)
            totals[f"{name}/{part}"] = totals.get(f"{name}/{part}", torch.zeros_like(value)) + value
