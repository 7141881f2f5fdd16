"""Fixtures that several folders share: real photos, and where the ones that may not be committed lie."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()  # until all is imported: see `pytest_collection_finish`
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub's client reads it when it is imported
# The networks here are tiny, and there are as many test processes as cores: more threads wait for each other. What
# tests start gets it too, and so the same last bits.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["IDGEN_HOME"] = os.devnull  # no statistics of this machine; tests that calibrate set their own

import numpy as np
import pytest
from skimage import data

from idgen import cli
from idgen.faces import FaceAnalyzer
from tests.processes import start_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, metavar="N", help="cases of each fuzzer, instead of the few that CI runs")


def pytest_sessionstart() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # few files alone start processes
        start_server()


def pytest_collection_finish() -> None:
    """Keep what was imported, half a million objects, out of each search for garbage, which would take a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def fuzz(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """The number of cases to run: `--fuzz N`, or the number that a test gives."""
    return lambda usual: request.config.getoption("--fuzz") or usual


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development photos and networks."""
    folder = Path(os.environ.get("IDGEN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the development photos are not at {folder}; set IDGEN_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A NASA portrait in the public domain, (512, 512, 3) uint8."""
    return data.astronaut()


@pytest.fixture(scope="session")
def group_photo() -> Path:
    """A photo of six people that insightface ships."""
    import insightface

    return Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"


@pytest.fixture(scope="session")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call `idgen` with these arguments; returns what it prints."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["idgen", *map(str, arguments)])
        cli.main()
        return capsys.readouterr().out

    return run


LONGEST = (
    "demo/test_api.py",
    "demo/test_browser.py",
    "demo/test_network.py",
    "training/test_reachable.py",
    "evaluation/test_command.py",
    "data/test_layouts.py",
    "docs/test_blocks.py",
    "docs/test_examples.py",
    "adapter/test_attention.py",
    "data/test_interrupted.py",
    "training/test_command.py",
    "training/test_loop.py",
    "tiny/test_adapter.py",
    "demo/test_tabs.py",
    "training/test_sharded.py",
    "training/test_policy_gradient.py",
    "faces/test_analyzer.py",
)
"""Files that take more than half a minute; with them begun first, no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others as they stand."""
    root = Path(__file__).parent
    places = {root / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
