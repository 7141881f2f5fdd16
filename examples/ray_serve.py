"""Serve pictures of people with Ray Serve: python examples/ray_serve.py [--help]

Each replica opens a pipeline of its own. Requests that wait share a call, each with a person and a prompt of its own:

    curl --data-binary @photo.jpg --output picture.png "http://127.0.0.1:8000/?prompt=a+sketch+of+a+face&seed=7"
"""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import tyro
from diffusers import DiffusionPipeline
from PIL import Image
from ray import serve
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import idgen
from idgen import Identity
from idgen.errors import BlockedIdentityError, IdgenError
from idgen.faces import load_photo
from idgen.provenance import IdentityBlocklist, mark

MAX_BYTES, MAX_PIXELS, MAX_PROMPT, MAX_STEPS = 20 * 2**20, 40_000_000, 1000, 100
STEPS, BATCH_SIZE = 25, 4


@dataclass(frozen=True)
class Settings:
    """What a request asks for; the settings are written into the picture."""

    prompt: str
    steps: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < len(self.prompt) <= MAX_PROMPT:
            raise ValueError(f"prompt is required, with at most {MAX_PROMPT} characters.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps must be between 1 and {MAX_STEPS}, got {self.steps}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be between 0 and {2**32 - 1}, got {self.seed}.")


@serve.deployment(max_ongoing_requests=4 * BATCH_SIZE, max_queued_requests=64)
class Portraits:
    """A photo in the body of a request → a picture of this person, as a PNG file.

    Args:
        base: Stable Diffusion model, or "tiny".
        id_adapter: Identity adapter for this base; "tiny" has its own.
        blocklist: People who must not be drawn.
        guidance_scale: Guidance scale of all pictures.
        watermark: Whether pictures get an invisible watermark.
    """

    def __init__(
        self, base: str, id_adapter: str | None, blocklist: Path | None, guidance_scale: float, watermark: bool = True
    ) -> None:
        self.pipe = open_pipeline(base, id_adapter)
        if blocklist is not None:
            self.pipe.id_blocklist = IdentityBlocklist.load(blocklist)
        self.base, self.guidance_scale, self.watermark = base, guidance_scale, watermark
        self.enrolling = asyncio.Lock()  # dlib's networks are not thread-safe

    async def __call__(self, request: Request) -> Response:
        """Check the limits, enrol the person, draw, and mark the picture."""
        length, asked = request.headers.get("content-length", ""), request.query_params
        if not length.isdecimal():
            return PlainTextResponse("The request must give its length.", 411)
        if int(length) > MAX_BYTES:
            return PlainTextResponse(f"A photo can have at most {MAX_BYTES:,} bytes.", 413)
        try:
            steps = int(asked.get("steps", STEPS))
            seed = int(asked.get("seed", secrets.randbelow(1_000_000)))
            settings = Settings(asked.get("prompt", ""), steps, seed)
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        try:
            photo = await request.body()
            async with self.enrolling:
                person = await asyncio.to_thread(self.enroll, photo)
            drawn = await self.draw((person, settings))
            if isinstance(drawn, IdgenError):
                raise drawn
            told = {**asdict(settings), "guidance_scale": self.guidance_scale, "base": Path(self.base).name}
            file = await asyncio.to_thread(mark, drawn, told, watermark=self.watermark)
        except IdgenError as error:
            return PlainTextResponse(str(error), 403 if isinstance(error, BlockedIdentityError) else 422)
        return Response(file, media_type="image/png")

    def enroll(self, photo: bytes) -> Identity:
        return self.pipe.encode_identity(load_photo(photo, MAX_PIXELS))

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=0.05)
    async def draw(self, requests: list[tuple[Identity, Settings]]) -> list[Image.Image | IdgenError]:
        """The picture of each request. A call has one number of steps; everything else can differ."""
        drawn: dict[int, Image.Image | IdgenError] = {}
        for steps in dict.fromkeys(settings.steps for _, settings in requests):
            chosen = [i for i, (_, settings) in enumerate(requests) if settings.steps == steps]
            pictures = await asyncio.to_thread(self.draw_together, [requests[i] for i in chosen])
            drawn |= dict(zip(chosen, pictures, strict=True))
        return [drawn[i] for i in range(len(requests))]

    def draw_together(self, requests: list[tuple[Identity, Settings]]) -> list[Image.Image | IdgenError]:
        """One call. If it fails, the requests are drawn one by one, so that nobody sees the error of another."""
        people, settings = zip(*requests, strict=True)
        try:
            return self.pipe(
                [each.prompt for each in settings],
                id_embeds=list(people),
                num_inference_steps=settings[0].steps,
                guidance_scale=self.guidance_scale,
                generator=[torch.Generator().manual_seed(each.seed) for each in settings],
            ).images
        except IdgenError as error:
            return [error] if len(requests) == 1 else [self.draw_together([each])[0] for each in requests]


def open_pipeline(base: str, id_adapter: str | None) -> Any:
    """The pipeline of a replica, on its GPU if it has one."""
    if base == "tiny":
        pipe: Any = idgen.load_tiny()
    else:
        pipe = DiffusionPipeline.from_pretrained(
            base, torch_dtype=torch.float16 if torch.cuda.is_available() else None
        )
    if id_adapter is not None:
        pipe.load_id_adapter(id_adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def main(
    base: str = "tiny",
    id_adapter: str | None = None,
    blocklist: Path | None = None,
    guidance_scale: float = 3.0,
    replicas: int = 2,
    gpus: float = 0.0,
    port: int = 8000,
) -> None:
    """Serve pictures of people at http://127.0.0.1:PORT until Ctrl-C.

    Args:
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model of the package.
        id_adapter: Identity adapter for this base.
        blocklist: File written by `idgen blocklist`: people who must not be drawn.
        guidance_scale: Guidance scale of all pictures.
        replicas: Number of pipelines; they share the cores of this machine.
        gpus: GPUs of each replica; a fraction shares a GPU.
        port: Port.
    """
    cores = max(1, (os.cpu_count() or 1) // replicas)  # Ray sets the threads of a replica to its cores
    ray.init(num_cpus=cores * replicas, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = Portraits.options(num_replicas=replicas, ray_actor_options={"num_cpus": cores, "num_gpus": gpus})
    serve.run(deployment.bind(base, id_adapter, blocklist, guidance_scale), blocking=True)


if __name__ == "__main__":
    tyro.cli(main)
