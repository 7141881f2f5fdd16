"""`--help`, a wrong flag and a missing file are answered at once: without torch, and before a model is opened."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from PIL import Image

from idgen import inputs
from idgen.commands import COMMANDS
from idgen.training.stages import STAGES as ROWS

SLOW = ("torch", "diffusers", "transformers", "accelerate", "gradio", "dlib")
OUTPUTS = {"output", "output_dir", "target", "file", "set"}
"""Options that name what is written; `file` is a blocklist, which --add creates."""
VALID: dict[str, list[str]] = {
    "generate": ["a face", "--photo", "photo.png"],
    "restore": ["photo.png", "--restorer", "."],
    "swap": ["photo.png", "--photo", "photo.png"],
    "evaluate": ["--identities", "."],
    "prepare": ["--output", "shards"],
    "blocklist": ["list.safetensors"],
    "forget": ["photo.png", "--person", "photo.png"],
    "protect": ["photo.png"],
    "convert": ["photo.png", "target"],
    "inspect": ["photo.png"],
    "info": ["photo.png"],
    "calibrate": ["photo.png"],
    "person": ["photo.png"],
    "index": ["photo.png"],
    "origin": ["photo.png", "--index", "."],
    "key": ["new.key"],
    "fingerprint": ["photo.png", "--output", "copy", "--tracing-key", ".", "--recipient", "1"],
    "trace": ["photo.png", "--tracing-key", "."],
}
"""What a command needs beside the missing file."""
STAGES: dict[str, type] = {name: row.config for name, row in ROWS.items()}
SHARDS = ["--train_data_dir", ".", "--output_dir", "run", "--id_adapter", "."]
NEEDED = dict.fromkeys(STAGES, SHARDS) | {"person": ["photo.png", "--output", "run"]}

PROGRAM = """
import contextlib, io, json, sys
from idgen.cli import main

slow, found = set(sys.argv[1].split(",")), []
for arguments in json.load(sys.stdin):
    sys.argv = ["idgen", *arguments]
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main()
        except SystemExit as end:
            code = end.code
    found.append([code, text.getvalue(), sorted(slow & sys.modules.keys())])
print(json.dumps(found))
"""


def run(calls: list[list[str]], folder: Path) -> list[tuple[int, str, list[str]]]:
    """Exit code, text and slow modules of each call, all of them in one new process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(SLOW)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


def parts(hint: Any) -> Iterator[Any]:
    """An annotation, and those inside of it."""
    yield hint
    for inner in get_args(hint):
        yield from parts(inner)


def named(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Flags of a command's function or of a dataclass, with their annotations, and whether they are positional."""
    hints = get_type_hints(kind, include_extras=True)
    hints.pop("return", None)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else hints
    for name in names:
        hint = hints[name]
        inner = next((part for part in parts(hint) if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
        if inner is not None:
            bare = any(getattr(part, "name", None) == "" for part in getattr(hint, "__metadata__", ()))
            yield from named(inner, prefix if bare else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint, "Positional" in repr(getattr(hint, "__metadata__", ()))


def _missing(kinds: list[Any]) -> str:
    """A value that names nothing."""
    return "arcface:nowhere.onnx" if any(kind.check is inputs.encoder_spec for kind in kinds) else "nowhere"


def missing_files() -> Iterator[list[str]]:
    """A call for each option that names an input, with a missing one."""
    for command in COMMANDS.keys() - {"train"}:
        for name, hint, positional in named(import_module(f"idgen.commands.{command}").run):
            if not (kinds := list(inputs.input_types(hint))):
                continue
            flag = [] if positional else [f"--{name.replace('_', '-')}"]
            valid = [word for word in VALID.get(command, []) if not (positional and word == "photo.png")]
            missing = [_missing(kinds)] * (2 if name == "compare" else 1)
            yield [command, *(missing if positional else []), *valid, *flag, *([] if positional else missing)]
    for stage, kind in STAGES.items():
        for name, hint, positional in named(kind):
            if kinds := list(inputs.input_types(hint)):
                wrong = (
                    ["nowhere", *NEEDED[stage][1:]] if positional else [*NEEDED[stage], f"--{name}", _missing(kinds)]
                )
                yield ["train", stage, *wrong]
        yield ["train", stage, "--config", "nowhere"]


def test_every_path_that_is_read_is_an_input() -> None:
    kinds = [import_module(f"idgen.commands.{command}").run for command in COMMANDS.keys() - {"train"}]
    for kind in (*kinds, *STAGES.values()):
        for name, hint, _ in named(kind):
            if Path in parts(hint) and not list(inputs.input_types(hint)):
                assert name.rpartition(".")[2] in OUTPUTS, f"{kind}: {name}"


def test_help_wrong_flags_and_missing_files_import_no_torch_and_open_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "base.toml").write_text('train_data_dir = "."\noutput_dir = "run"\nbase = "nowhere"\n')
    programs = [[name] for name in COMMANDS.keys() - {"train"}] + [["train", stage] for stage in STAGES]
    helped = [[*program, "--help"] for program in programs]
    wrong = [[*program, *VALID.get(program[-1], []), "--no-such-flag"] for program in programs]
    missing = [*missing_files(), *(["train", stage, "--config", "base.toml"] for stage in STAGES)]
    assert len(missing) > 40
    calls = [*helped, *wrong, *missing]
    for call, (code, text, slow) in zip(calls, run(calls, tmp_path), strict=True):
        said = " ".join(text.split())
        assert not slow, (call, slow)
        if call in helped:
            assert code == 0, (call, said)
        else:
            assert code in (1, 2), (call, said)
            assert ("nowhere" if call in missing else "no-such-flag") in said or "base.toml" in call, (call, said)
            assert "Traceback" not in said, call


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("tinny", "tiny"),
        ("stable-diffusion-xl-base-1", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("phots", "photos"),
    ],
)
def test_the_nearest_good_name_is_told(
    wrong: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    check = inputs.existing_path if right == "photos" else inputs.base_name
    with pytest.raises(inputs.IdgenError, match=f"Did you mean '{right}'"):
        check(wrong)
