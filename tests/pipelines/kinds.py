"""Every kind of pipeline that the laws hold for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from idgen import Identity, IdentityAdapter, IdentityNet
from idgen.faces.expression import EXPRESSION, MEASURES
from tests.components import FAMILIES, SMALL_PROJECTIONS, TASKS, call_arguments, make_adapter, make_pipeline, seeded


def person(seed: int) -> Identity:
    """Somebody with image features, for adapters that read them."""
    features = torch.randn(1, 16, 12, generator=seeded(seed))
    return replace(Identity.random("test", 8, seed=seed), features=features)


def face(seed: int) -> Identity:
    """A random expression."""
    return Identity(embeddings=torch.randn(1, len(MEASURES), generator=seeded(seed)), encoder=EXPRESSION)


ANNA, BRUNO = person(1), person(2)
SMILE, FROWN = face(1), face(2)
KINDS = ("plain", "controlnet", "identity_net", "pag")
CASES = [(family, task, kind) for family in FAMILIES for task in TASKS for kind in KINDS]
CASES += [("sdxl", task, "photomaker") for task in TASKS] + [("sdxl", "txt2img", "photomaker_controlnet")]
CASES += [("sdxl", task, "pulid") for task in TASKS]
CASES += [("sdxl", "txt2img", "pulid_controlnet"), ("sdxl", "img2img", "pulid_identity_net")]
CASES += [("sd", "txt2img", "sequential"), ("sdxl", "img2img", "sequential_identity_net")]

every_pipeline = pytest.mark.parametrize(("family", "task", "kind"), CASES)


def make(family: str, task: str, kind: str) -> Any:
    """A stock pipeline of random weights."""
    made = make_pipeline(family, task, controlnet=has_net(kind))
    if kind.endswith("identity_net"):
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


def has_net(kind: str) -> bool:
    return kind.endswith(("controlnet", "identity_net"))


def adapter_for(pipeline: Any, kind: str = "plain", **config: Any) -> IdentityAdapter:
    """A random adapter: one that changes the prompt, one with orthogonal fusion, gated layers, or a plain sum."""
    if kind.startswith("sequential"):
        config = {"placement": "sequential"} | config
    if kind.startswith("photomaker"):
        projection = SMALL_PROJECTIONS["photomaker-v2"]
        config = {"projection": projection, "num_tokens": 2, "pool_photos": False} | config
    if kind.startswith("pulid"):
        projection = SMALL_PROJECTIONS["pulid" if kind == "pulid" else "idformer"]
        fusion = {"ortho": "ortho_v2", "num_zero": 3}
        config = {"projection": projection, "num_tokens": 7, "pool_photos": False, **fusion} | config
    adapter = make_adapter(pipeline.unet, **config)
    if kind.startswith("photomaker"):  # strong enough to be seen: one word of 77 changes
        fuse: Any = adapter.to_tokens.fuse_module
        torch.nn.init.normal_(fuse.mlp1.fc1.weight, std=0.5)
        torch.nn.init.normal_(fuse.mlp1.fc2.weight, std=0.5)
        torch.nn.init.constant_(fuse.layer_norm.weight, 50.0)
    return adapter


def expressions(pipeline: Any, **config: Any) -> IdentityAdapter:
    """A random adapter that reads expressions."""
    return make_adapter(pipeline.unet, seed=5, encoder=EXPRESSION, embedding_dim=len(MEASURES), **config)


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
    """The same noise each time, and the person where the method reads one."""
    if kind.startswith("photomaker") and arguments.get("id_embeds") is not None:
        arguments = {"prompt": "a face <id>", "id_scale": 1.0} | arguments
    return pipeline(**call_arguments(task, has_net(kind), **arguments)).images
