"""What documents name without making it: people, photos, a hub, a GPU."""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

import idgen
import idgen.training.config as training_config
from idgen import evaluation
from idgen.losses import Parametrisation
from idgen.losses.negatives import Bank
from tests.data import sets
from tests.faces.onnx_pack import EMBEDDING_DIM

from .hub import write_hub, write_packs


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_hub(folder / "hub")
    write_packs(folder)
    return folder


@pytest.fixture
def portrait(astronaut: np.ndarray) -> Image.Image:
    """A face for dlib; and for the packs of `hub`, whose detector fires on bright red, one red spot and no more."""
    grey = astronaut[:320, 64:384].mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    pixels = np.array(Image.fromarray(grey).resize((256, 256)))  # small, since finding faces takes longest
    pixels[192:200, 24:32] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture
def surroundings(
    hub: Path, portrait: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, Any]]:
    """In a folder of its own, with the files and names that a page takes for granted."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub / "hub"))
    monkeypatch.setenv("HOME", str(hub))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "METRICS", dict(evaluation.METRICS))  # a page adds a row
    _without_gpu(monkeypatch)
    _in_two_steps(monkeypatch)
    two_updates = functools.partial(training_config.LoopConfig, max_train_steps=2)
    monkeypatch.setattr(training_config, "LoopConfig", lambda **_: two_updates())
    for name in ("anna.jpg", "anna-1.jpg", "anna-2.jpg", "anna-3.jpg", "bruno.jpg", "group.jpg"):
        portrait.save(tmp_path / name, quality=95)
    (tmp_path / "downloads").mkdir()
    file = next((hub / "hub").rglob("ip-adapter-faceid_sdxl.bin"))
    shutil.copy(file, tmp_path / "downloads")

    def prepare(page: str) -> dict[str, Any]:
        make = {
            "attributes": _beside,
            "demo": _demo,
            "people": _pipe,
            "safety": _pipe,
            "consent": _pipe,
            "checkpoints": _pipe,
            "comfyui": _pipe,
            "migration": _embedding,
            "losses": _losses,
            "rewards": _training,
            "prepare": _photos,
            "reading": _shards,
            "training": _shards,
        }
        half = np.zeros((64, 64), bool)
        half[:, :32] = True
        return {
            "Path": Path,
            "Image": Image,
            "image": portrait,
            "photo": portrait,
            "photo_1": portrait,
            "photo_2": portrait,
            "prompt": "a portrait in the rain",
            "prompts": "a portrait in the rain",
            "base": "stabilityai/stable-diffusion-xl-base-1.0",
            "edges": portrait.resize((32, 32)),
            "mask": Image.fromarray(half),
            "left": half,
            "right": ~half,
            **make.get(page, dict)(),
        }

    return prepare


def _beside() -> dict[str, Any]:
    """Adapters of expressions and of parts for the small model in the folders `run` and `parts`."""
    unet = idgen.load_tiny().unet
    idgen.IdentityAdapter.from_unet(unet, encoder="expression-v1", embedding_dim=13).save_pretrained("run")
    rows: Any = {"type": "rows", "rows": 4, "hidden_dim": 16, "depth": 1}
    parts = {"encoder": "parts/dlib-resnet-v1", "embedding_dim": 1920, "projection": rows}
    idgen.IdentityAdapter.from_unet(unet, **parts).save_pretrained("parts")
    return {}


def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.to("cuda")` and offloading take the processor."""
    pipeline = diffusers.DiffusionPipeline
    to, offload = pipeline.to, pipeline.enable_model_cpu_offload
    monkeypatch.setattr(pipeline, "to", lambda self, *args, **kwargs: to(self, *map(_processor, args), **kwargs))
    monkeypatch.setattr(pipeline, "enable_model_cpu_offload", lambda self, **_: offload(self, device="cpu"))
    model = diffusers.ModelMixin
    move = model.to
    monkeypatch.setattr(model, "to", lambda self, *args, **kwargs: move(self, *map(_processor, args), **kwargs))


def _in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not say how many steps takes two: fifty show no more, with networks that learned nothing."""
    for name in ("", "XL"):
        for kind in ("", "Img2Img", "Inpaint", "ControlNet"):
            call: Any = inspect.unwrap(getattr(diffusers, f"StableDiffusion{name}{kind}Pipeline").__call__)
            fewer = tuple(2 if default == 50 else default for default in call.__defaults__)
            monkeypatch.setattr(call, "__defaults__", fewer)


def _processor(where: Any) -> Any:
    return "cpu" if where == "cuda" else where


def _pipe() -> dict[str, Any]:
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
    pipe.load_id_adapter("user/adapter")
    return {"pipe": pipe}


def _embedding() -> dict[str, Any]:
    return {"embedding": np.ones(EMBEDDING_DIM, np.float32)}


def _demo() -> dict[str, Any]:
    pytest.importorskip("gradio", reason="the demo needs Gradio, which is not installed")
    return {"pipe": idgen.load_tiny()}


def _photos() -> dict[str, Any]:
    """Photos of one person, one of them under another name."""
    for name in ("anna/1.jpg", "anna/2.jpg", "anna/3.jpg", "bruno/1.jpg"):
        sets.save(sets.portrait(512, shift=int(name[-5]) * 8), Path("photos") / name)
    return {}


def _shards() -> dict[str, Any]:
    """These photos as shards."""
    _photos()
    sets.make_set("photos", "shards")
    return {"batch_persons": torch.tensor([0]), "step": 1}


def _losses() -> dict[str, Any]:
    """A step on random numbers."""
    random = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 4, 8, 8, generator=random, requires_grad=True)
    faces = torch.randn(2, 128, generator=random)
    timesteps = torch.tensor([10, 900])
    batch = {
        "noise": torch.randn(2, 4, 8, 8, generator=random),
        "latents": torch.randn(2, 4, 8, 8, generator=random),
        "model_output": prediction,
        "timesteps": timesteps,
        "persons": torch.tensor([0, 1]),
        "target_embeds": torch.randn(2, 128, generator=random),
        "negatives": Bank(torch.randn(64, 128, generator=random), torch.arange(64)),
        "face_found": torch.tensor([True, False]),
    }
    return {
        "parametrisation": Parametrisation.of(diffusers.DDPMScheduler()),
        "batch": batch,
        "decode_faces": lambda: (faces, None),
        "embedder": lambda faces, landmarks: faces,
        "timesteps": timesteps,
    }


def _training() -> dict[str, Any]:
    from idgen.training.base import BaseModel

    base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
    adapter = idgen.IdentityAdapter.from_unet(base.unet, encoder="dlib-resnet-v1", embedding_dim=128)
    return {"base": base, "adapter": adapter}
