"""The examples run, offline and from any folder."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVER = EXAMPLES / "ray_serve.py"
"""It runs until it is stopped; `test_ray_serve.py` tests it."""


@pytest.mark.parametrize("script", sorted(set(EXAMPLES.glob("*.py")) - {SERVER}), ids=lambda path: path.stem)
def test_scripts(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])  # not the flags of pytest
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as a kernel runs them: a new process needs longer to import the package than to run them."""
    notebook = nbformat.read(file, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "outputs are not committed"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shown = []
    for cell in cells:
        result = shell.run_cell(cell.source, store_history=False)
        result.raise_error()
        shown.append(result.result)
    assert any(value is not None for value in shown)
