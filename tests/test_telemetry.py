"""Nothing is sent to a server that the user did not name, and nothing is left in the user's folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.provenance import read_watermark

ROOT = Path(__file__).parents[1]


def test_generate_and_the_demo_ask_nobody_and_leave_nothing(astronaut: np.ndarray, tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client", reason="the demo needs Gradio, which is not installed")
    photo, picture, notes = tmp_path / "eileen.png", tmp_path / "picture.png", tmp_path / "notes"
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    Image.fromarray(astronaut).save(photo)
    words = ["generate", "a face", "--photo", photo, "--output", picture, "--steps", "1", "--", "demo"]
    messages = tmp_path / "messages"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.no_network", notes, *words],
        cwd=ROOT,
        env={
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=messages.open("w"),
        text=True,
    )
    try:
        said = []
        while not (said and said[-1].startswith("The demo is at ")):
            said.append(child.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]
            assert said[-1], f"the program ended with {child.wait()} after {said}; {-signal.SIGSYS} is a look-up"
        assert read_watermark(Image.open(picture)).found  # so onnxruntime has run
        client = gradio_client.Client(said[-1].split()[4], verbose=False, download_files=False)
        photos = [{"image": gradio_client.handle_file(str(photo)), "caption": None}]
        client.predict(photos, [], "Eileen", True, api_name="/enroll")
        shown, _ = client.predict("Eileen", steps=1, api_name="/generate")
        drawn = Path(shown[0]["image"]["path"])
        assert drawn.is_relative_to(temporary)
        assert drawn.is_file()
        child.send_signal(signal.SIGTERM)  # as `docker stop` does
        assert child.wait(20) == -signal.SIGTERM
        client.close()
    finally:
        child.kill()
    assert not notes.exists(), notes.read_text()
    told = messages.read_text()
    assert "it knows these words: a, " in told
    assert not [word for word in ("transformers", "diffusers", "Expected", "were passed to") if word in told], told
    assert not [*home.iterdir()]
    assert not [*temporary.glob("idgen-demo-*")]  # of other libraries there are empty folders
    assert not [path for path in temporary.rglob("*") if path.is_file()]
