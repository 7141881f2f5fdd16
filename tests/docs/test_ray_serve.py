"""The deployment of `examples/ray_serve.py`, in this process instead of a cluster."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

from idgen import __version__, enroll
from idgen.provenance import IdentityBlocklist, read_settings

ROOT = Path(__file__).parents[2]

REQUESTS = (
    ("ada", "prompt=a+face&steps=1&seed=7", None, 200),
    ("astronaut", "prompt=a+face", None, 403),
    ("ada", "prompt=a+face&steps=101", None, 400),
    ("ada", "prompt=a+face&seed=x", None, 400),
    ("ada", "", None, 400),
    ("nobody", "prompt=a+face", None, 422),
    ("ada", "prompt=a+face", "", 411),
    ("ada", "prompt=a+face", str(10**9), 413),
)
"""Photo, query, another `content-length` than the photo's, and status of the answer."""


def request(photo: bytes, query: str, length: str | None) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": photo, "more_body": False}

    headers = [(b"content-length", (str(len(photo)) if length is None else length).encode())]
    return Request({"type": "http", "method": "POST", "headers": headers, "query_string": query.encode()}, receive)


def test_requests_that_wait_share_a_call_and_limits_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = pytest.importorskip("ray.serve", reason="needs the extra `serve`, which `dev` leaves out")
    replica = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=16))
    monkeypatch.setattr(serve, "get_replica_context", lambda: replica)  # a queue of Ray asks its replica for this
    names = runpy.run_path(str(ROOT / "examples" / "ray_serve.py"))
    people = ROOT / "src" / "idgen" / "demo" / "examples"
    photos = {name: (people / f"{name}.webp").read_bytes() for name in ("astronaut", "ada", "ben")}
    refused = tmp_path / "refused.safetensors"
    IdentityBlocklist.of(enroll(photos["astronaut"])).save(refused)
    server: Any = names["Portraits"].func_or_class("tiny", None, refused, guidance_scale=3.0, watermark=False)
    sizes: list[int] = []
    server.pipe.unet.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    asked = [
        (enroll(photos[name]), names["Settings"]("a photo of a face", steps, seed=1))
        for name, steps in (("ada", 2), ("ben", 1), ("ben", 2))
    ]

    async def work() -> tuple[list[Any], list[Any]]:
        drawn = await asyncio.gather(*map(server.draw, asked))
        sizes.append(0)
        given = (request(photos.get(name, b"no photo"), query, length) for name, query, length, _ in REQUESTS)
        return drawn, [await server(each) for each in given]

    drawn, answers = asyncio.run(work())
    assert sizes == [4, 4, 2, 0, 2]  # with guidance: two people in two steps, one in one step; the one valid request
    for each, picture in zip(asked, drawn, strict=True):
        (alone,) = server.draw_together([each])
        assert np.abs(np.asarray(alone, float) - np.asarray(picture)).max() <= 2
    assert [answer.status_code for answer in answers] == [status for *_, status in REQUESTS]
    assert read_settings(answers[0].body) == {
        "generator": f"idgen {__version__}",
        "base": "tiny",
        "prompt": "a face",
        "steps": 1,
        "seed": 7,
        "guidance_scale": 3.0,
    }
