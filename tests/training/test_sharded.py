"""Weights sharded by FSDP over two processes: the same run as with DDP, whole in every file, and resumed exactly.

A run can also be resumed with another number of processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard

from idgen import IdentityAdapter
from idgen.training.config import LossConfig
from idgen.training.loop import Loop
from tests.processes import run_in_two

from .runs import RandomPeople, make_loop, make_step

LOSS = """
import torch

class Level(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, model_output):
        return (model_output.mean((2, 3)) - self.weight).square().mean(1)

level = Level()
"""


class Splits(Accelerator):
    """Does what accelerate does with FSDP on GPUs; accelerate refuses FSDP on CPUs."""

    def prepare(self, *prepared: Any, **_: Any) -> Any:
        step, optimizer = prepared
        names = [name for name, weight in step.named_parameters() if weight.requires_grad]
        fully_shard(step, reshard_after_forward=False)
        optimizer.param_groups[0]["params"] = [dict(step.named_parameters())[name] for name in names]
        return step, self.prepare_optimizer(optimizer)


def learned_loss(folder: Path) -> LossConfig:
    """Denoising, and a loss of one's own with a weight that is trained."""
    return LossConfig.only(**{f"{folder.parent / 'own.py'}:level": 0.1})


def train(*runs: tuple[Path, str, int]) -> None:
    """The work of each of the two processes: runs one after the other, each with a folder, a kind and its end."""
    for folder, kind, stop in runs:
        accelerator = Splits(cpu=True) if kind == "fsdp" else Accelerator(cpu=True)
        assert accelerator.num_processes == 2
        losses = learned_loss(folder)
        pattern = make_loop(folder, steps=4, losses=losses, resume_from_checkpoint="latest")
        people = RandomPeople(2, rank=accelerator.process_index, world=2)
        loop = Loop(make_step(losses=losses), people, folder, pattern.config, pattern.settings, accelerator)
        if accelerator.process_index == 1:  # one process is told; both end
            loop.trained.register_forward_hook(
                lambda *_, loop=loop, stop=stop: setattr(loop.stop, "requested", loop.done + 1 == stop)
            )
        assert loop.run() == stop
    accelerator.end_training()  # pyright: ignore[reportPossiblyUnboundVariable]  # a process that leaves its threads behind may be aborted at its end


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(IdentityAdapter.from_pretrained(folder).state_dict())


def test_sharded_weights_give_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LOSS)  # once: the processes would read a file that the other is writing
    ddp, fsdp, cut = (tmp_path / name for name in ("ddp", "fsdp", "cut"))
    run_in_two(train, (ddp, "ddp", 4), (fsdp, "fsdp", 4), (cut, "fsdp", 2))
    whole, split = weights(ddp), weights(fsdp)
    for name, weight in whole.items():
        torch.testing.assert_close(split[name], weight, rtol=1e-3, atol=1e-5)
    states = [load_file(tmp_path / kind / "checkpoint-4" / "training.safetensors") for kind in ("ddp", "fsdp")]
    assert {name: part.shape for name, part in states[0].items()} == {n: p.shape for n, p in states[1].items()}
    levels = [state["loss.level.weight"] for state in states]
    torch.testing.assert_close(*levels, rtol=1e-3, atol=1e-5)
    assert (levels[0] != 1).all()
    alone = shutil.copytree(cut, tmp_path / "alone")
    run_in_two(train, (cut, "fsdp", 4))  # resumed in new processes
    again = weights(cut)
    assert all(torch.equal(again[name], split[name]) for name in split)
    losses = learned_loss(alone)
    make_loop(alone, steps=4, losses=losses, gradient_accumulation_steps=2, resume_from_checkpoint="latest").run()
    for name, weight in IdentityAdapter.from_pretrained(alone).state_dict().items():  # one process for two
        torch.testing.assert_close(weight, split[name], rtol=1e-3, atol=1e-5)
