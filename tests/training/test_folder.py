"""The folder of a run: locked by one run at a time, resumed exactly or refused, and robust to damaged files."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idgen import IdentityAdapter
from idgen.demo.tabs.training import read_metrics
from idgen.errors import CheckpointError, TrainingError
from idgen.losses.row import Table
from idgen.losses.table import LOSSES
from idgen.rewards import RewardHackingGuard
from idgen.rewards.table import REWARDS
from idgen.training import checkpoint
from idgen.training.checkpoint import STATE, SUFFIXES, SUMS, check_whole, list_checkpoints
from idgen.training.config import DenoisingConfig
from idgen.training.early_stopping import EarlyStopping
from idgen.training.loop import Loop
from idgen.training.resume import check_start, check_unchanged, find_checkpoint, locked
from idgen.training.summary import describe_training
from idgen.training.tracking import append_row, read_rows
from idgen.training.validation import SIMILARITY

from .runs import make_loop
from .test_card import MANIFEST
from .test_loop import weights_of


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows, read with a strict JSON reader."""

    def refuse(value: str) -> None:
        raise AssertionError(f"{value} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row in rows_of(folder)]


def names_of(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates with checkpoints after two, four and six."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    make_loop(folder, checkpoints_total_limit=3).run()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_folder_that_holds_a_run_is_refused(run: Path) -> None:
    """Whatever is left of the run, nothing is changed."""
    for part in (lambda name: name.startswith("checkpoint"), lambda name: name == "metrics.jsonl", lambda _: False):
        kept = sorted(str(path) for path in run.rglob("*"))
        with pytest.raises(TrainingError, match=r"already holds a run .*--resume_from_checkpoint latest"):
            make_loop(run).run()
        assert sorted(str(path) for path in run.rglob("*")) == kept
        for path in list(run.iterdir()):
            if part(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in list_checkpoints(run):
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):  # the weights would be overwritten
        make_loop(run, resume_from_checkpoint="latest").run()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="could not be written"), locked(tmp_path / "file"):
        pass


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a few bytes short": lambda file: os.truncate(file, file.stat().st_size - 2),
    "empty": lambda file: os.truncate(file, 0),
    "missing": Path.unlink,
    "garbage": lambda file: file.write_bytes(os.urandom(100)),
    "one bit": flip,
    "other JSON": lambda file: file.write_text("[]"),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a folder": become_folder,
    "no permission": lambda file: file.chmod(0),
}


def test_a_damaged_file_costs_one_checkpoint(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest, older = run / "checkpoint-6", run / "checkpoint-4"
    files = [path for path in newest.rglob("*") if path.suffix in SUFFIXES or path.name == SUMS]
    assert {path.name for path in files} >= {STATE, SUMS, "training.safetensors", "config.json"}
    assert find_checkpoint(run, "latest") == newest
    kept = shutil.copytree(newest, run.parent / "kept")
    for name, damage in FILES.items():
        for file in files:
            damage(file)
            if name == "no permission" and os.access(file, os.R_OK):
                continue  # an administrator reads everything
            caplog.clear()
            assert find_checkpoint(run, "latest") == older, f"{file.name}: {name}"
            assert "checkpoint-6" in caplog.text
            assert "older checkpoint" in caplog.text
            with pytest.raises(CheckpointError):
                find_checkpoint(run, str(newest))
            shutil.rmtree(newest)
            shutil.copytree(kept, newest)


def test_a_damaged_folder_costs_one_checkpoint(run: Path) -> None:
    newest, older = run / "checkpoint-6", run / "checkpoint-4"
    shutil.rmtree(newest)
    for make in (newest.mkdir, newest.touch, lambda: newest.symlink_to(run / "nowhere")):
        make()
        assert find_checkpoint(run, "latest") == older
        newest.rmdir() if newest.is_dir() else newest.unlink()
    for other in ("checkpoint-²", "checkpoint-٧", "checkpoint-", "checkpoint-9.old", "checkpoint--9"):
        (run / other).mkdir()
    assert find_checkpoint(run, "latest") == older
    (run / "checkpoint-4" / STATE).unlink()
    (run / "checkpoint-2" / STATE).unlink()
    with pytest.raises(CheckpointError, match=r"All 2 checkpoints in .* are damaged"):
        find_checkpoint(run, "latest")
    with pytest.raises(CheckpointError, match=r"training\.json"):
        find_checkpoint(run, str(run))


def test_a_checkpoint_of_another_version_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, and with the way to go on from its weights."""
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    message = rf"another version of idgen.*--id_adapter '{run}/checkpoint-6'"
    with pytest.raises(TrainingError, match=message):
        check_start(run, "latest", {})
    with pytest.raises(TrainingError, match=message):
        make_loop(run, resume_from_checkpoint="latest").run()
    assert names_of(run) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    IdentityAdapter.from_pretrained(run / "checkpoint-6")


def test_a_run_resumes_from_before_the_damage(run: Path, finished: Path) -> None:
    flip(run / "checkpoint-6" / "training.safetensors")
    assert make_loop(run, checkpoints_total_limit=3, resume_from_checkpoint="latest").run() == 6
    assert [{**row, "seconds": 0} for row in rows_of(run)] == [{**row, "seconds": 0} for row in rows_of(finished)]
    assert names_of(run) == names_of(finished)
    check_whole(run / "checkpoint-6")
    assert (run / "checkpoint-6.old").is_dir()
    ours, theirs = weights_of(run), weights_of(finished)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_resuming_from_an_older_checkpoint_loses_nothing(run: Path) -> None:
    """The newer checkpoints are renamed, and the new ones are kept."""
    back: dict[str, Any] = {"checkpoints_total_limit": 1, "seed": 1}
    make_loop(run, resume_from_checkpoint=os.path.relpath(run / "checkpoint-2"), **back).run()
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]
    assert names_of(run) == ["checkpoint-6"]
    assert sorted(path.name for path in run.glob("*.old")) == ["checkpoint-4.old", "checkpoint-6.old"]
    make_loop(run, resume_from_checkpoint=str(run / "checkpoint-6.old"), **back).run()  # back to the first branch
    assert sorted(path.name for path in run.glob("checkpoint-6*")) == ["checkpoint-6.old", "checkpoint-6.old1"]


def test_the_gradient_scale_is_resumed(tmp_path: Path) -> None:
    def loop(scale: float) -> Loop:
        made = make_loop(tmp_path, steps=2, resume_from_checkpoint="latest")
        made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return made

    first, second = loop(8.0), loop(2.0)
    first.run()
    second.run()
    assert second.accelerator.scaler is not None
    assert second.accelerator.scaler.get_scale() == 8.0


def test_each_update_is_logged_once(run: Path, finished: Path) -> None:
    """Rows after the checkpoint are replaced, and a line cut by a crash is dropped."""
    file = run / "metrics.jsonl"
    shutil.rmtree(run / "checkpoint-6")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:5], lines[5][:10]]))
    make_loop(run, checkpoints_total_limit=3, resume_from_checkpoint="latest").run()
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]
    before = file.read_bytes()
    again = make_loop(run, checkpoints_total_limit=3, resume_from_checkpoint="latest")
    again.validate = lambda step: {"validation/faces": float(step)}
    assert again.run() == 6  # only the validation was missing
    assert file.read_bytes().startswith(before)
    assert rows_of(run)[-1] == {"step": 6, "validation/faces": 6.0, "skipped": 0}
    assert make_loop(run, resume_from_checkpoint="latest").run() == 6
    assert steps_of(run) == [1, 2, 3, 4, 5, 6, 6]


def test_a_checkpoint_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then folders, then the name, then the parent folder."""
    loop, events = make_loop(tmp_path, steps=2), []
    synced, replaced = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{handle}"))
        synced(handle)

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == "checkpoint-2":
            events.append({str(path) for path in (Path(source), *Path(source).rglob("*"))})
        replaced(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    loop.run()
    named = next(i for i, event in enumerate(events) if isinstance(event, set))
    assert events[named] <= set(events[:named])
    assert str(tmp_path) in events[named + 1 :]


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    """All readers of the metrics accept null."""
    loop = make_loop(tmp_path, steps=4)

    def spoil(_: Any, arguments: tuple) -> None:
        if loop.done == 1:
            arguments[0].latents.fill_(float("nan"))

    loop.step.register_forward_pre_hook(spoil)
    measured = {1: math.nan, 2: math.inf, 4: 0.5}
    loop.validate = lambda step: {
        "validation/faces": 1.0,
        f"{SIMILARITY}a": measured[step],
        f"{SIMILARITY}b": measured[step],
    }
    loop.early_stopping = EarlyStopping(
        trained=f"{SIMILARITY}a", unseen=f"{SIMILARITY}b", rule=RewardHackingGuard(window=3)
    )
    assert loop.run() == 4
    rows = rows_of(tmp_path)
    assert [row["loss"] is None for row in rows if "loss" in row] == [False, True, False, False]
    assert [row[f"{SIMILARITY}a"] for row in rows if "loss" not in row] == [None, 0.5]
    assert read_rows(tmp_path / "metrics.jsonl") == rows
    assert read_metrics(tmp_path)["loss"].notna().tolist() == [True, False, True, True]
    append_row(tmp_path / "metrics.jsonl", {"step": 4, "validation/faces": 1.0, f"{SIMILARITY}a": math.nan})
    config = DenoisingConfig(train_data_dir="shards", output_dir=tmp_path)
    describe_training(tmp_path, MANIFEST, config, updates=4)
    assert "similarity" not in (tmp_path / "README.md").read_text().partition("## Training")[2]


def test_the_summary_at_the_end_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(stop: int, **loop: Any) -> str:
        made = make_loop(tmp_path, steps=4, ema=0.0, resume_from_checkpoint="latest", **loop)
        made.step.register_forward_pre_hook(lambda *_: setattr(made.stop, "requested", made.done + 1 == stop))
        made.stop.requested = stop == 0
        made.run()
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert run(0) == "Stopped before the first update: nothing is saved."
    assert run(3).startswith("Stopped after 3 of 4 updates")
    assert run(4) == "Trained 4 updates, 1 of them now."
    assert run(5) == "All 4 updates were done already: nothing was trained."


@pytest.mark.parametrize(("kind", "table"), [("losses", LOSSES), ("rewards", REWARDS)])
def test_a_row_that_a_checkpoint_does_not_know_was_off(kind: str, table: Table) -> None:
    for name in table.rows:
        check_unchanged({}, {f"{kind}.{name}": "0"}, "run")
        with pytest.raises(TrainingError, match=rf"{kind}\.{name} was '0', now '0\.1'"):
            check_unchanged({}, {f"{kind}.{name}": "0.1"}, "run")
