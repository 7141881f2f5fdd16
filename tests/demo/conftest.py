"""The page, served to clients in this process. The base is tiny and random; everything else is real."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idgen import Identity
from idgen.demo.backend import Backend
from idgen.faces import DlibEncoder
from idgen.provenance.options import MarkOptions
from tests.components import make_adapter, make_pipeline

gradio_client = pytest.importorskip("gradio_client", reason="the demo needs Gradio, which is not installed")


@dataclass
class Served:
    """A page at an address. A client is a visitor."""

    url: str
    folder: Path
    pipe: Any
    demo: Any
    backend: Backend

    def client(self) -> Any:
        # to verify certificates is to read them for each request, and there are none
        return gradio_client.Client(
            self.url, verbose=False, download_files=False, ssl_verify=False, httpx_kwargs={"timeout": 120}
        )

    def files(self) -> list[Path]:
        """All files, also while folders are deleted, where `rglob` would fail."""
        return [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]

    def path(self, served: str | dict[str, Any]) -> Path:
        """Path of a file that the page served to a client."""
        return Path(served if isinstance(served, str) else served["path"])


@pytest.fixture(scope="module")
def serve() -> Iterator[Any]:
    """Serve a pipeline."""
    demos = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "0.2")  # a client that closes waits for the next one

        def serve(pipe: Any, launch: Any = None, **options: Any) -> Served:
            from idgen.demo import build_demo
            from idgen.demo.temp_folder import temp_folder

            options = {"marks": MarkOptions(watermark=False)} | options
            demo: Any = build_demo(pipe, **options)
            demos.append(demo)
            _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **(launch or {}))
            return Served(url, temp_folder(), pipe, demo, demo.backend)

        yield serve
        for demo in demos:
            demo.close()


@pytest.fixture(scope="module")
def served(serve: Any) -> Served:
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet, encoder=DlibEncoder.name, embedding_dim=128))
    return serve(pipe, base="random")


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    client = served.client()
    yield client
    client.close()


@pytest.fixture(scope="session")
def eileen(astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo: the time to find its face grows with the number of pixels."""
    path = tmp_path_factory.mktemp("photos") / "eileen.png"
    Image.fromarray(astronaut[:320, 64:384]).resize((200, 200)).save(path)
    return path


def gallery(*photos: Path | str) -> list[dict[str, Any]]:
    """Photos, as the API takes them."""
    return [{"image": gradio_client.handle_file(str(photo)), "caption": None} for photo in photos]


def enroll_random(client: Any, folder: Path, seed: int, name: str) -> Identity:
    """An invented person, loaded from an identity file."""
    identity = Identity.random(DlibEncoder.name, DlibEncoder.dim, norm=1.5, seed=seed)
    identity.save(folder / f"{seed}.safetensors")
    assert (
        client.predict(gradio_client.handle_file(str(folder / f"{seed}.safetensors")), name, api_name="/load_identity")
        == name
    )
    return identity


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
