"""`idgen train` from shards to an adapter: both stages, on the built-in model and real photos."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from idgen import IdentityAdapter
from idgen.adapter import Restorer
from idgen.cli import main
from idgen.data.assign import AssignOptions
from idgen.data.cache import write_caches
from idgen.data.prepare import PrepareOptions, prepare
from idgen.errors import TrainingError
from idgen.tiny.usage import Usage
from idgen.training import restorer
from idgen.training.checkpoint import list_checkpoints
from idgen.training.parsing import parse
from tests.processes import start_command

ROOT = Path(__file__).resolve().parents[2]
DENOISE = [
    *("--max_train_steps", "2", "--train_batch_size", "2", "--checkpointing_steps", "1", "--validation_people", "1"),
    *("--losses", "identity=1", "contrastive=0.1", "--losses.negatives", "4", "--num_words", "2"),
    *("--optimizer.lr_warmup_steps", "1"),
]


@pytest.fixture(scope="module")
def shards(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    photos, output = tmp_path_factory.mktemp("photos"), str(tmp_path_factory.mktemp("shards"))
    with tarfile.open(shared / "data" / "lfw" / "lfw-000.tar") as tar:
        for member in tar.getmembers()[:30]:
            tar.extract(member, photos, filter="data")
    shares = {"validation": 0.3}
    prepare(PrepareOptions(photos=str(photos), output=output, people=AssignOptions(shares=shares)))
    write_caches(output, ["latents"], base="tiny", resolution=128)
    return output


def idgen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["idgen", "train", *arguments])
    main()


def test_both_stages_write_a_folder_that_a_pipeline_loads(shards, tmp_path, monkeypatch, astronaut, capsys):
    run, reward = tmp_path / "run", tmp_path / "reward"
    idgen(monkeypatch, "denoise", "--train_data_dir", shards, "--output_dir", str(run), *DENOISE)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"denoising", "identity", "contrastive", "loss"} <= rows[0].keys()
    assert (run / "validation" / "step-000002.png").exists()
    card = (run / "README.md").read_text()
    assert "denoising=1, identity=1@0.85, contrastive=0.1@0.85" in card
    assert "similarity to unseen people, dlib-resnet-v1" in card
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut).save("photo.jpg")
    exec(card.partition("```python\n")[2].partition("```")[0], drawn := {})
    assert drawn["image"].size == (128, 128)
    told = " ".join(capsys.readouterr().err.split())
    assert f"'{run}' holds an identity adapter for tiny" in told
    assert "similarity to unseen people" in told
    assert "Next: idgen generate" in told
    idgen(
        monkeypatch,
        *("reward", "--id_adapter", str(run), "--train_data_dir", shards, "--output_dir", str(reward)),
        *("--max_train_steps", "2", "--train_batch_size", "2", "--validation_people", "0"),
        *("--optimizer.lr_warmup_steps", "1"),
        *("--rollout.steps", "2", "--rollout.last", "1"),
    )
    before, after = (IdentityAdapter.from_pretrained(folder).state_dict() for folder in (run, reward))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert ", by " in (reward / "README.md").read_text()


def test_an_expression_adapter_is_trained_beside_that_of_a_person(shards, tmp_path, monkeypatch, astronaut, capsys):
    write_caches(shards, ["embeddings"], base="", resolution=64, encoders=["dlib-resnet-v1", "expression-v1"])
    folder, photo = str(tmp_path / "run"), str(tmp_path / "photo.jpg")
    flags = ["--train_data_dir", shards, "--output_dir", folder, "--encoder", "expression-v1", "--beside", "tiny"]
    flags += [
        "--num_tokens",
        "2",
        "--blocks",
        "mid",
        *DENOISE[:8],
        "--max_train_steps",
        "1",
        "--losses",
        "contrastive=0",
    ]
    with pytest.raises(SystemExit):
        idgen(monkeypatch, "denoise", *flags)
    assert "--no-normalised" in capsys.readouterr().err
    idgen(monkeypatch, "denoise", *flags, "--no-normalised", "--resume_from_checkpoint", "latest")
    adapter = IdentityAdapter.from_pretrained(folder)
    assert adapter.reads_expression
    assert all("mid_block" in name for name in adapter.branches)
    assert (tmp_path / "run" / "validation" / "step-000001.png").exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "holds an expression adapter for tiny" in told
    assert {"expression-v1", "dlib-resnet-v1"} == set(re.findall(r"similarity to unseen people, (\S+):", told))
    Image.fromarray(astronaut).save(photo)
    output, command = str(tmp_path / "drawn.png"), ["idgen", "generate", "a photo of a face", "--photo", photo]
    command += ["--expression", photo, "--expression-adapter", folder, "--steps", "1", "--output", output]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert Image.open(output).size == (128, 128)


def test_a_restorer_is_trained_and_its_curve_is_fitted(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(restorer, "GRID", (0.0, 1.0))
    monkeypatch.setattr(restorer, "DAMAGES", restorer.DAMAGES[1:2])
    monkeypatch.setattr("idgen.pipelines.restore.pipeline_usage", lambda _: Usage(num_inference_steps=2))
    flags = ["--train_data_dir", shards, "--output_dir", str(tmp_path), "--max_train_steps", "2", "--fit_people", "1"]
    flags += ["--train_batch_size", "2", "--optimizer.lr_warmup_steps", "1"]
    idgen(monkeypatch, "restorer", *flags)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["denoising"] < 5 for row in rows)
    trained = Restorer.from_pretrained(tmp_path)
    assert any(block.weight.any() for block in trained.controlnet_down_blocks), "it starts with zeros"  # pyright: ignore
    assert len(trained.curve.degradation) == 1
    assert 0 < trained.curve.degradation[0] < 1
    assert {*trained.curve.early, *trained.curve.late} <= {0.0, 1.0}


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(shards, tmp_path, monkeypatch):
    """kill -9 at a random moment after the first checkpoint, then the same command again."""
    flags = ["denoise", "--train_data_dir", shards, *DENOISE, "--validation_people", "0", "--max_train_steps", "5"]
    flags += ["--resume_from_checkpoint", "latest"]
    idgen(monkeypatch, *flags, "--output_dir", str(tmp_path / "whole"))
    cut = [*flags, "--output_dir", str(tmp_path / "cut")]
    process = start_command("train", *cut)
    deadline = time.monotonic() + 240
    while not list_checkpoints(tmp_path / "cut") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list_checkpoints(tmp_path / "cut")
    idgen(monkeypatch, *cut)
    whole, cut = (IdentityAdapter.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_flags_override_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'train_data_dir = "shards"\noutput_dir = "run"\n[losses]\nidentity = 0.5\n'
        '[validation]\nvalidation_prompts = ["a", "b"]\n[loop]\nseed = 3\n'
    )
    config = parse("denoise", ["--config", str(file), "--seed", "4", "--losses", "contrastive=0.1"], "idgen")
    weights = [str(config.losses.active[name]) for name in ("identity", "contrastive", "preservation")]
    assert (config.loop.seed, weights) == (4, ["0.5@0.85", "0.1@0.85", "0.1"])  # of the file, the flag, the default
    assert config.validation.validation_prompts == ("a", "b")
    file.write_text('train_data_dir = "shards"\noutput_dir = "run"\nlosess = 1\n')
    with pytest.raises(TrainingError, match="losess"):
        parse("denoise", ["--config", str(file)], "idgen")


def test_names_of_earlier_versions(tmp_path):
    """A file is refused with the new name; the flag that diffusers' scripts have is accepted."""
    needed, file = ["--train_data_dir", "shards", "--output_dir", "run"], tmp_path / "run.toml"
    for text, message in (
        ('pretrained_model_name_or_path = "tiny"', "pretrained_model_name_or_path is now called base"),
        ("[rollout]\nidentity_weight = 1.0", "identity_weight is now called identity in the table rewards"),
        ("[losses]\nt_max = 0.5", "t_max is now called the window of each weight"),
    ):
        file.write_text(f'train_data_dir = "shards"\noutput_dir = "run"\n{text}\n')
        with pytest.raises(TrainingError, match=message):
            parse("reward", ["--config", str(file)], "idgen")
    for stage in ("denoise", "reward"):
        for flag in ("--base", "--pretrained_model_name_or_path", "--pretrained-model-name-or-path"):
            assert parse(stage, [*needed, flag, "a/base"], "idgen").base == "a/base"


METHODS_READ = {
    "refl": {"last", "scheduler", "style", "guidance_scale", "preservation", "denoising", "vae"},
    "draft": {"last", "scheduler", "style", "guidance_scale", "preservation", "denoising", "vae"},
    "draft-lv": {"copies", "scheduler", "style", "guidance_scale", "preservation", "denoising", "vae"},
    "alignprop": {"last", "scheduler", "style", "guidance_scale", "preservation", "denoising", "vae"},
    "swap": {"strength", "supervision", "guidance_scale", "preservation", "denoising", "vae"},
    "ddpo": {"learned"},
    "grpo": {"learned", "group", "updates", "clip", "kl"},
}
VALUES = {
    "scheduler": "DDIMScheduler",
    "vae": "taesd",
    "clip": 0.01,
    "kl": 0.5,
    "guidance_scale": 3.0,
    "strength": 0.5,
}


def as_toml(values):
    """The text of a file with these settings of the method."""
    lines = [
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in values.items()
    ]
    return "\n".join(['train_data_dir = "shards"', 'output_dir = "run"', "[rollout]", *lines])


@pytest.mark.parametrize("method", METHODS_READ)
def test_a_method_refuses_settings_of_other_methods(method, tmp_path, capsys):
    """By flag and in a file; the flag overrides the method of the file."""
    needed = ["--train_data_dir", "shards", "--output_dir", "run", "--rollout.method", method]
    file = tmp_path / "run.toml"
    in_file = ["--config", str(file), "--rollout.method", method]
    values = {name: VALUES.get(name, 2) for name in sorted(set().union(*METHODS_READ.values()))}

    def as_flags(names):
        return [f"--rollout.{name}={values[name]}" for name in names]

    own = {name: value for name, value in values.items() if name in METHODS_READ[method]}
    file.write_text(as_toml(own))
    for config in (parse("reward", [*needed, *as_flags(own)], "idgen"), parse("reward", in_file, "idgen")):
        assert config.rollout.method == method
        assert {name: getattr(config.rollout, name) for name in own} == own

    others = [name for name in values if name not in own]
    with pytest.raises(SystemExit):
        parse("reward", [*needed, *as_flags(others)], "idgen")
    refused = capsys.readouterr().err.split("Unrecognized options:")[1]
    for name in others:
        assert f"--rollout.{name}={values[name]}" in refused
        file.write_text(as_toml({name: values[name]}))
        with pytest.raises(TrainingError, match=f"'?{name}'? is not known"):
            parse("reward", in_file, "idgen")
    file.write_text(as_toml({"method": method}))
    assert parse("reward", ["--config", str(file)], "idgen").rollout.method == method


def test_invalid_settings_of_methods_are_refused():
    needed = ["--train_data_dir", "shards", "--output_dir", "run"]
    for flags, message in (
        (["--rollout.method", "ppo"], "must be one of alignprop, refl, draft, draft-lv, swap, ddpo, grpo, not 'ppo'"),
        (["--rollout.method", "ddpo", "--train_batch_size", "1"], "train_batch_size must be at least 2"),
        (["--rollout.method", "grpo", "--checkpointing_steps", "3"], "must be a multiple of 2, not 3"),
        (["--rollout.method", "grpo", "--rollout.group", "1"], "group must be at least 2"),
        (["--rollout.method", "swap", "--rollout.strength", "0"], "strength must be above 0"),
        (["--rollout.method", "swap", "--group", "photo"], "group must be 'face', not 'photo'"),
        (["--rollout.last", "30"], "last must lie between 1 and steps=8"),
    ):
        with pytest.raises(TrainingError, match=message):
            parse("reward", [*needed, *flags], "idgen")
    assert parse("reward", [*needed, "--train_batch_size", "1"], "idgen").rollout.method == "alignprop"


_HELP = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code
"""


def test_help_of_the_scripts():
    """Both in one new process, so that messages printed on import would be seen."""
    scripts = ["train_id_adapter.py", "train_id_reward.py"]
    command = [sys.executable, "-c", _HELP, *(str(ROOT / "train" / script) for script in scripts)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for script in scripts:
        _, _, told = found.stdout.partition(f"usage: {script}")
        told, _, _ = told.partition("usage: ")
        assert "--train-data-dir" in told
        assert "--max-train-steps" in told
    assert "accelerate" not in found.stderr
