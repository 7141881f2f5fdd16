"""The training loop: a stopped and resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_scheduler

from idgen import IdentityAdapter
from idgen.errors import TrainingError
from idgen.rewards import RewardHackingGuard
from idgen.training.checkpoint import list_checkpoints
from idgen.training.config import DenoisingConfig, LoopConfig, LossConfig, OptimizerConfig
from idgen.training.conflicts import ConflictingGradients
from idgen.training.distributed import make_accelerator
from idgen.training.dry_run import dry_run, duration
from idgen.training.early_stopping import EarlyStopping
from idgen.training.optimization import UpdateFilter
from idgen.training.optimizer_config import Schedule
from idgen.training.parsing import from_toml
from tests.processes import run_in_two, start

from .runs import RandomPeople, make_loop, make_step


def losses_of(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in sorted(rows, key=lambda row: row["step"]) if "loss" in row]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(IdentityAdapter.from_pretrained(folder).state_dict())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(number: signal.Signals, tmp_path: Path) -> None:
    make_loop(tmp_path / "whole").run()
    first = make_loop(tmp_path / "parts", checkpointing_steps=1)
    first.step.register_forward_hook(lambda *_: os.kill(os.getpid(), number) if first.done == 2 else None)
    assert first.run() == 3  # the update under way is finished
    assert make_loop(tmp_path / "parts", resume_from_checkpoint="latest").run() == 6
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_learned_parts_of_losses_are_trained_and_resumed_but_not_exported(tmp_path: Path) -> None:
    losses = LossConfig.only(contrastive="0.1@1", heads=2, learned=("heads", "gates", "temperature"), mixup=0.4)
    whole = make_loop(tmp_path / "whole", steps=3, losses=losses)
    before = {name: weight.clone() for name, weight in whole.trained.loss_parts.state_dict().items()}
    whole.run()
    first = make_loop(tmp_path / "parts", steps=3, losses=losses)
    first.step.register_forward_hook(lambda *_: setattr(first.stop, "requested", first.done == 1))
    assert first.run() == 2
    parts = make_loop(tmp_path / "parts", steps=3, losses=losses, resume_from_checkpoint="latest")
    assert parts.run() == 3
    resumed = parts.trained.loss_parts.state_dict()
    for name, weight in whole.trained.loss_parts.state_dict().items():
        assert not torch.equal(weight, before[name])
        assert torch.equal(weight, resumed[name])
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert whole.trained.adapter is not None
    assert weights_of(tmp_path / "whole").keys() == whole.trained.adapter.state_dict().keys()


def test_a_weight_of_a_loss_that_counts_for_no_sample_has_a_gradient() -> None:
    """Another process may have samples that count, and waits for the gradient of every weight."""
    step = make_step(losses=LossConfig.only(contrastive="0.1@0", learned=("gates",)))
    with step:
        step(RandomPeople(2).make(0), torch.Generator().manual_seed(0)).total.backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in step.loss_parts.parameters())


def finish(folder: Path, steps: int) -> None:
    make_loop(folder, steps=steps, resume_from_checkpoint="latest", checkpointing_steps=2).run()


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """kill -9 at a random moment, then the same run again; until then the folder is locked."""
    make_loop(tmp_path / "whole", steps=8).run()
    folder = tmp_path / "killed"
    other = make_loop(folder, steps=8, resume_from_checkpoint="latest")
    process = start(finish, folder, 8)
    deadline = time.monotonic() + 120
    while not list_checkpoints(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(TrainingError, match="Another process is writing to"):
        other.run()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list_checkpoints(folder)
    assert other.run() == 8
    whole, again = weights_of(tmp_path / "whole"), weights_of(folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_checkpoints_are_limited_and_load(tmp_path: Path) -> None:
    make_loop(tmp_path, steps=7, checkpoints_total_limit=2).run()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-7"]
    assert weights_of(tmp_path / "checkpoint-7").keys() == weights_of(tmp_path).keys()
    averaged, last = weights_of(tmp_path), weights_of(tmp_path / "checkpoint-7")
    assert any(not torch.equal(averaged[name], last[name]) for name in last)  # the result is the average


def test_updates_that_are_not_finite_are_skipped_and_end_the_run_if_there_are_too_many(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "one", steps=4, checkpointing_steps=10)
    before = [weight.clone() for weight in loop.parameters]

    def spoil(_: Any, args: tuple) -> None:
        if loop.done == 1:
            args[0].latents.fill_(float("nan"))

    loop.step.register_forward_pre_hook(spoil)
    assert loop.run() == 4
    assert loop.filter.rejected == 1
    assert all(weight.isfinite().all() for weight in loop.parameters)
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.parameters, strict=True))

    hopeless = make_loop(tmp_path / "all", steps=10, max_bad_steps=3)

    def spoil_all(_: Any, args: tuple) -> None:
        args[0].latents.fill_(float("nan"))

    hopeless.step.register_forward_pre_hook(spoil_all)
    with pytest.raises(TrainingError, match="not finite, or exploded, in 4 updates"):
        hopeless.run()


def test_an_exploding_update_is_skipped() -> None:
    accepts = UpdateFilter(ratio=100, max_rejected=1)
    assert all(accepts(norm) for norm in (1e-6, 1.0, 1000.0))  # the first hundred norms are not compared
    accepts = UpdateFilter(ratio=100, max_rejected=1)
    assert all(accepts(1.0 + i % 2) for i in range(100))
    assert not accepts(151.0)
    assert accepts(149.0)
    assert not accepts(float("inf"))
    with pytest.raises(TrainingError, match="2 updates in a row"):
        accepts(1e9)
    assert UpdateFilter(ratio=0, max_rejected=1, total=1.0, seen=1000)(1e30)


def test_exploding_updates_do_not_change_the_weights(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, steps=3, checkpointing_steps=10)
    loop.filter.total, loop.filter.seen = 1e-9, 1000
    before = [weight.clone() for weight in loop.parameters]
    assert loop.run() == 3
    assert loop.filter.rejected == 3
    assert all(torch.equal(a, b) for a, b in zip(before, loop.parameters, strict=True))
    again = make_loop(tmp_path, steps=3, resume_from_checkpoint="latest")
    again.run()
    assert (again.filter.total, again.filter.seen) == (1e-9, 1000)


@pytest.mark.parametrize("words", [0, 2])
def test_two_processes_give_the_gradient_of_one(words: int, tmp_path: Path) -> None:
    """Also with pseudo-words that only the prompts of one process contain, and of a combination that is no sum."""
    run_in_two(two_backward_passes, tmp_path, words)
    found = [torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True) for rank in range(2)]
    step = step_for_two(words)
    conflicts = ConflictingGradients("mgda", list(step.parameters()), Accelerator(cpu=True))
    for rank in range(2):
        with step:
            random = torch.Generator().manual_seed(rank)
            losses = step(people_for_two(rank).make(rank), random)
            conflicts.add(losses.identity / 2)
            (losses.total / 2).backward()
    conflicts.combine()
    expected = [weight.grad for weight in step.parameters()]
    assert len(expected) == len(found[0])
    for a, b, e in zip(*found, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-7)


def step_for_two(words: int) -> Any:
    return make_step(losses=LossConfig.only(identity="0.1@1"), words=words)


def people_for_two(rank: int) -> RandomPeople:
    return RandomPeople(2, prompt="a <id> at sea" if rank else "a person at sea")


def two_backward_passes(folder: Path, words: int) -> None:
    """One of two processes. Two passes, because the second fails if the first leaves gradients unsynchronised."""
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    assert accelerator.num_processes == 2
    step = step_for_two(words)
    prepared = accelerator.prepare_model(step)
    conflicts = ConflictingGradients("mgda", list(step.parameters()), accelerator)
    for _ in range(2):
        step.zero_grad()
        with step:
            random = torch.Generator().manual_seed(rank)
            losses = prepared(people_for_two(rank).make(rank), random)
            conflicts.add(losses.identity)
            accelerator.backward(losses.total)
        conflicts.combine()
    torch.save([weight.grad for weight in step.parameters()], folder / f"gradients-{rank}.pt")
    accelerator.end_training()


def test_configuration_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('train_data_dir = "shards"\noutput_dir = "run"\n[losses]\nidentity = 0.1\n[loop]\nseed = 3\n')
    config = from_toml(DenoisingConfig, file)
    assert (config.loop.seed, config.train_data_dir) == (3, "shards")
    assert config.losses.active["identity"] == (0.1, 0.85)
    for text, message in (
        ('train_data_dir = "a"\noutput_dir = "b"\n[losses]\nidenty = 1\n', "'identy' is not known"),
        ('train_data_dir = "a"\noutput_dir = "b"\n[loop]\nseed = "x"\n', "seed must be of type int"),
        ('train_data_dir = "a"\noutput_dir = "b"\n[losses]\nidentity = "1@ajar"\n', "NUMBER@SHARE"),
        ('train_data_dir = "a"\noutput_dir = "b"\n[losses]\nedits = "old"\n', "edits must be of type tuple"),
        ('train_data_dir = "a"\noutput_dir = "b"\n[loop]\ndry_run = 1\n', "dry_run must be of type bool"),
        ('train_data_dir = "a"\noutput_dir = "b"\nloop = 1\n', "must be a table of settings"),
        ('train_data_dir = "a"\noutput_dir = "b"\n[losses]\ntriplet = 1\n', "prior_dir"),
        ('output_dir = "b"\n', "train_data_dir is missing"),
        ("= 3", "could not be read"),
    ):
        file.write_text(text)
        with pytest.raises(TrainingError, match=message):
            from_toml(DenoisingConfig, file)
    with pytest.raises(TrainingError, match="max_train_steps"):
        LoopConfig(max_train_steps=0)


def test_invalid_settings_are_refused(tmp_path: Path) -> None:
    for seed in (-1, 2**32, 10**30):
        with pytest.raises(TrainingError, match=f"seed must lie between 0 and 4294967295, not {seed}"):
            LoopConfig(seed=seed)
    with pytest.raises(TrainingError, match="set one of the two"):
        LoopConfig(compile=True, gradient_checkpointing=True)
    schedule: Any = "piecewise_constant"  # which diffusers knows, but it needs rules that no flag gives
    with pytest.raises(TrainingError, match=r"lr_scheduler must be one of .*cosine.* not 'piecewise_constant'"):
        OptimizerConfig(lr_scheduler=schedule)
    assert make_loop(tmp_path, steps=1, seed=2**32 - 1).run() == 1


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_diffusers_knows_every_learning_rate_schedule(schedule: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    get_scheduler(schedule, optimizer, num_warmup_steps=1, num_training_steps=10)


@pytest.fixture
def _fresh_state() -> Iterator[None]:
    """Accelerate keeps one precision per process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16")
@pytest.mark.usefixtures("_fresh_state")
@pytest.mark.parametrize("configured", ["by the run", "by accelerate"])
def test_fp16_without_a_gpu_is_refused(configured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if configured == "by accelerate":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(TrainingError, match="fp16 needs a GPU"):
        make_accelerator(LoopConfig(mixed_precision="fp16" if configured == "by the run" else None), tmp_path)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run")
    before = [weight.detach().clone() for weight in loop.parameters]
    found = dry_run(loop)
    assert found["trained"] == sum(weight.numel() for weight in before)
    assert found["parameters"] > found["trained"]
    assert found["seconds"] > 0
    assert found["gigabytes"] > 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, loop.parameters, strict=True))
    assert loop.batches.state_dict() == {"number": 0}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (150, "2.5 minutes"), (5400, "90 minutes"), (8000, "2.2 hours"), (3e5, "3.5 days")],
)
def test_durations_are_told_in_a_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_early_stopping_detects_reward_hacking(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loop = make_loop(tmp_path, steps=20, checkpointing_steps=1)
    loop.validate = lambda step: {"own": 0.5 + 0.05 * step, "unseen": 0.5 - 0.05 * max(0, step - 4)}
    loop.early_stopping = EarlyStopping(trained="own", unseen="unseen", rule=RewardHackingGuard(window=3, patience=2))
    ended = loop.run()
    assert 6 <= ended < 12
    assert "earlier checkpoint" in caplog.text
    honest = make_loop(tmp_path / "honest", steps=8, checkpointing_steps=1)
    honest.validate = lambda step: {"own": 0.5 + 0.05 * step, "unseen": 0.5 + 0.04 * step}
    honest.early_stopping = loop.early_stopping
    assert honest.run() == 8
