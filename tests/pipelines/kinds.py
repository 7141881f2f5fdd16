"""Every kind of pipeline that the laws hold for."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest

from idgen import Identity, IdentityNet
from tests.components import FAMILIES, TASKS, call_arguments, make_pipeline

ANNA = Identity.random("test", 8, seed=1)
BRUNO = Identity.random("test", 8, seed=2)
KINDS = ("plain", "controlnet", "identity_net", "pag")

every_pipeline = pytest.mark.parametrize(
    ("family", "task", "kind"), [(family, task, kind) for family in FAMILIES for task in TASKS for kind in KINDS]
)


def make(family: str, task: str, kind: str) -> Any:
    """A stock pipeline of random weights."""
    made = make_pipeline(family, task, controlnet=kind in ("controlnet", "identity_net"))
    if kind == "identity_net":
        net: Any = IdentityNet.from_config(made.controlnet.config)
        net.load_state_dict(made.controlnet.state_dict())
        made.register_modules(controlnet=net.eval())
    if kind == "pag":
        name = type(made).__name__
        task_name = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint"}[task]
        made = over(
            made, name.removesuffix(f"{task_name}Pipeline") + f"PAG{task_name}Pipeline", pag_applied_layers=["mid"]
        )
    return made


def over(pipeline: Any, name: str, **options: Any) -> Any:
    """A stock pipeline of another class over the networks of one, with a scheduler of its own."""
    kind = getattr(diffusers, name)
    parts = {part: network for part, network in pipeline.components.items() if part in kind.__init__.__annotations__}
    parts["scheduler"] = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    if "requires_safety_checker" in kind.__init__.__annotations__:
        options["requires_safety_checker"] = False
    made = kind(**parts, **options)
    made.set_progress_bar_config(disable=True)
    return made


def plain_over(pipeline: Any) -> Any:
    """Text-to-image over the networks of a pipeline."""
    return over(pipeline, f"StableDiffusion{'XL' if hasattr(pipeline, 'text_encoder_2') else ''}Pipeline")


def draw(pipeline: Any, task: str = "txt2img", kind: str = "plain", **arguments: Any) -> np.ndarray:
    """The same noise each time."""
    return pipeline(**call_arguments(task, kind in ("controlnet", "identity_net"), **arguments)).images
