"""The files in train/configs: accelerate loads its files, and the examples of runs are valid."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command, launch_command_parser

from idgen import IdentityAdapter
from idgen.errors import TrainingError
from idgen.losses.settings import DEFAULTS
from idgen.training.config import DenoisingConfig, RewardConfig
from idgen.training.parsing import from_toml, parse
from idgen.training.stages import STAGES
from tests.data import sets

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "train" / "configs"
PRESET_FILES = [path.name for path in (ROOT / "src" / "idgen" / "training" / "presets").iterdir()]
KINDS = {
    "cpu": "NO",
    "one_gpu": "NO",
    "several_gpus": "MULTI_GPU",
    "several_nodes": "MULTI_GPU",
    "fsdp": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
}


def test_every_file_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == KINDS.keys()
    assert {f"{name}.toml" for row in STAGES.values() for name in row.presets} == {*PRESET_FILES}


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_loads_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loader refuses unknown keys, and its launcher refuses inconsistent ones."""
    file = str(CONFIGS / f"{name}.yaml")
    found: Any = load_config_from_file(file)
    assert found.distributed_type == KINDS[name]
    parser = launch_command_parser()
    known = {action.dest for action in parser._actions}
    assert {f"fsdp_{key.removeprefix('fsdp_')}" for key in found.fsdp_config} <= known
    assert {*found.deepspeed_config} <= known
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", file, "script.py"]))
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (name == "fsdp", name == "deepspeed_zero2")
    assert arguments.num_processes == found.num_processes


NEEDED = ["--train_data_dir", "shards", "--output_dir", "run"]


@pytest.mark.parametrize("stage", ["denoise", "reward"])
def test_presets_give_values_that_files_and_flags_replace(stage: Any, tmp_path: Path, capsys) -> None:
    for name in STAGES[stage].presets:
        config = parse(stage, ["--preset", name, *NEEDED], "idgen")
        assert config.loop.max_train_steps >= 300
        assert settings(config) == RECOMMENDED[stage]
        (tmp_path / "run.toml").write_text('output_dir = "other"\n[loop]\nmax_train_steps = 7\n')
        flags = ["--preset", name, "--config", str(tmp_path / "run.toml"), "--train_data_dir", "shards", "--seed", "3"]
        changed = parse(stage, flags, "idgen")
        assert (changed.loop.max_train_steps, changed.loop.seed, str(changed.output_dir)) == (7, 3, "other")
        assert changed.loop.train_batch_size == config.loop.train_batch_size
        with pytest.raises(SystemExit):
            parse(stage, ["--preset", name], "idgen")
        assert "--train-data-dir" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="--preset must be one of"):
        parse(stage, ["--preset", "nothing", *NEEDED], "idgen")


@pytest.mark.parametrize("stage", STAGES)
def test_help_is_short_and_all_of_it_is_in_help_all(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            parse(stage, [flag], "idgen")
        said.append({*re.findall(r"(--[a-z][\w.-]+)", capsys.readouterr().out)})
    short, all_of_it = said
    assert len(short) < len(all_of_it)
    assert len(short) < 40
    assert stage == "restorer" or len(all_of_it) > 40  # a restorer has no losses of its own
    assert short - {"--preset", "--config", "--help-all", "--losses", "--rewards"} <= all_of_it


def settings(config: DenoisingConfig | RewardConfig) -> dict[str, Any]:
    """Losses or rewards: flag → value."""
    names = ("rewards", "rollout") if isinstance(config, RewardConfig) else ("losses",)
    parts = {name: getattr(config, name) for name in names}
    return {f"--{part}.{name}": value for part, all_ in parts.items() for name, value in asdict(all_).items()}


RECOMMENDED = {
    stage: settings(parse(stage, ["--train_data_dir", "shards", "--output_dir", "run"], "idgen"))
    for stage in ("denoise", "reward")
}


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("denoise", ROOT / "train" / "tiny" / "adapter.toml"),
        ("reward", ROOT / "train" / "tiny" / "reward.toml"),
    ],
    ids=lambda of: f"{of.parent.name}-{of.stem}" if isinstance(of, Path) else of,
)
def test_one_configuration_is_recommended(stage: Any, file: Path) -> None:
    """The recipe of the built-in model has the default losses and rewards."""
    assert settings(from_toml(RewardConfig if stage == "reward" else DenoisingConfig, file)) == RECOMMENDED[stage]


def test_the_guides_commands_are_the_recommended_ones() -> None:
    commands = re.findall(r"^idgen train (denoise|reward) (.+)$", (ROOT / "docs" / "training.md").read_text(), re.M)
    assert [stage for stage, _ in commands[:2]] == ["denoise", "reward"]
    for stage, flags in commands[:2]:
        assert settings(parse(stage, flags.split(), "idgen")) == RECOMMENDED[stage]


def test_the_page_has_the_recommended_settings() -> None:
    rows = re.findall(r"^\| `(--[a-z_.]+)` \| (\S+)( for dlib)? \|", (ROOT / "docs" / "losses.md").read_text(), re.M)
    recommended = {**RECOMMENDED["denoise"], **RECOMMENDED["reward"]}
    names = [f"--{part}.{name}" for part in ("losses", "rewards") for name in asdict(DEFAULTS)]
    fitted = {flag for flag in names if flag in recommended}
    assert fitted | {"--rollout.preservation", "--rollout.denoising"} <= {flag for flag, *_ in rows}
    for flag, value, of_dlib in rows:
        if of_dlib:
            assert recommended[flag] is None
            assert float(value) == pytest.approx(getattr(DEFAULTS, flag.rpartition(".")[2]), rel=0.01)
        else:
            assert value == str(recommended[flag])


def test_accelerate_launch_trains(tmp_path: Path) -> None:
    for name in ("anna/1.jpg", "anna/2.jpg", "anna/3.jpg"):
        sets.save(sets.portrait(512, shift=int(name[-5]) * 8), tmp_path / "photos" / name)
    sets.make_set(str(tmp_path / "photos"), str(tmp_path / "shards"))
    command = ["--config_file", str(CONFIGS / "cpu.yaml"), str(ROOT / "train" / "train_id_adapter.py")]
    command += ["--train_data_dir", str(tmp_path / "shards"), "--output_dir", str(tmp_path / "run")]
    command += ["--max_train_steps", "2", "--train_batch_size", "2", "--resolution", "64"]
    launch_command(launch_command_parser().parse_args(command))  # fails if the process that it starts does
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    IdentityAdapter.from_pretrained(tmp_path / "run")
