"""Weights split by FSDP over two processes: the same run as DDP's, whole in every file, and resumed to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from idgen import IdentityAdapter

SCRIPT = """
import sys, torch
from pathlib import Path
from accelerate import Accelerator
from torch.distributed.fsdp import fully_shard
from tests.training.runs import RandomPeople, make_loop, make_step
from idgen.training.loop import Loop

class Splits(Accelerator):
    # what accelerate does with FSDP on GPUs; on processors it refuses
    def prepare(self, step, optimizer):
        names = [name for name, weight in step.named_parameters() if weight.requires_grad]
        fully_shard(step, reshard_after_forward=False)
        optimizer.param_groups[0]["params"] = [dict(step.named_parameters())[name] for name in names]
        return step, self.prepare_optimizer(optimizer)

folder, kind, stop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
accelerator = Splits(cpu=True) if kind == "fsdp" else Accelerator(cpu=True)
pattern = make_loop(folder, steps=4, resume_from_checkpoint="latest")
people = RandomPeople(2, start=accelerator.process_index, stride=2)
loop = Loop(make_step(), people, folder, pattern.config, pattern.settings, accelerator)
if accelerator.process_index == 1:  # one process is told; both end
    loop.trained.register_forward_hook(lambda *_: setattr(loop, "_stop", loop.done + 1 == stop))
assert loop.run() == stop
accelerator.end_training()  # a process that leaves its threads behind may be aborted at its end
"""


def run(folder: Path, kind: str, stop: int = 4) -> dict[str, torch.Tensor]:
    script = folder.parent / "split.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29533"]
    command += [str(script), str(folder), kind, str(stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(IdentityAdapter.from_pretrained(folder).state_dict())


def test_split_weights_are_the_same_run(tmp_path: Path) -> None:
    whole, split = run(tmp_path / "ddp", "ddp"), run(tmp_path / "fsdp", "fsdp")
    for name, weight in whole.items():
        torch.testing.assert_close(split[name], weight, rtol=1e-3, atol=1e-5)
    states = [load_file(tmp_path / kind / "checkpoint-4" / "training.safetensors") for kind in ("ddp", "fsdp")]
    assert {name: part.shape for name, part in states[0].items()} == {n: p.shape for n, p in states[1].items()}
    run(tmp_path / "cut", "fsdp", stop=2)
    again = run(tmp_path / "cut", "fsdp")
    assert all(torch.equal(again[name], split[name]) for name in split)
