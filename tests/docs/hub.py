"""A hub's cache on disk: what the documents name by hub id, as tiny random networks in the published layouts.

Nothing of the loading is replaced: `from_pretrained` finds the files where a download would have put them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from idgen.adapter import IdentityNet, cross_attention_layers
from idgen.faces import DlibEncoder
from tests.checkpoints.published import Published
from tests.checkpoints.published_photomaker import tiny_photomaker
from tests.checkpoints.published_pulid import tiny_pulid
from tests.components import TEXT_DIM, make_adapter, make_controlnet, make_pipeline
from tests.faces.onnx_pack import EMBEDDING_DIM, write_pack

REVISION = "0" * 40
BASES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/sdxl-turbo": "sdxl",
}
CONTROLNETS = {"lllyasviel/control_v11p_sd15_canny": "sd", "diffusers/controlnet-canny-sdxl-1.0": "sdxl"}
LORAS = {
    "latent-consistency/lcm-lora-sdxl": ("sdxl", "pytorch_lora_weights.safetensors"),
    "latent-consistency/lcm-lora-sdv1-5": ("sd", "pytorch_lora_weights.safetensors"),
    "ByteDance/SDXL-Lightning": ("sdxl", "sdxl_lightning_4step_lora.safetensors"),
    "user/style-lora": ("sdxl", "pytorch_lora_weights.safetensors"),
}
ADAPTERS = {"user/adapter": "sdxl", "user/adapter-sd15": "sd"}
PACKS = ("buffalo_l", "antelopev2")


def write_hub(cache: Path) -> None:
    """Fill the cache with every repository that a document names."""
    for repo, family in BASES.items():
        make_pipeline(family).save_pretrained(_folder(cache, repo))
    for repo, family in CONTROLNETS.items():
        make_controlnet(make_pipeline(family).unet).save_pretrained(_folder(cache, repo))
    for repo, (family, name) in LORAS.items():
        _write_lora(_folder(cache, repo), family, name)
    for repo, family in ADAPTERS.items():
        unet = make_pipeline(family).unet
        make_adapter(unet, encoder=DlibEncoder.name, embedding_dim=DlibEncoder.dim).save_pretrained(
            _folder(cache, repo)
        )
    _write_published(cache)


def write_packs(home: Path) -> None:
    """insightface's packs, where insightface keeps them; the detector fires on bright red."""
    for name in PACKS:
        write_pack(home / ".insightface" / "models" / name)


def _write_published(cache: Path) -> None:
    widths = {family: _widths(family) for family in ("sd", "sdxl")}
    common: dict[str, Any] = {"embedding": EMBEDDING_DIM, "rank": 4}
    instantid = _folder(cache, "InstantX/InstantID")
    resampler = {**common, "cross": 2 * TEXT_DIM, "tokens": 16, "dim": 64, "depth": 4}
    Published("instantid", "ip-adapter.bin", widths["sdxl"], **resampler).write(instantid)
    net = IdentityNet.from_unet(make_pipeline("sdxl").unet, conditioning_embedding_out_channels=(8, 8))
    net.save_pretrained(instantid / "ControlNetModel")
    pulid = _folder(cache, "guozinan/PuLID")
    for version, name in (("pulid-v1", "pulid_v1.bin"), ("pulid-v1.1", "pulid_v1.1.safetensors")):
        tiny_pulid(version, name, hidden=widths["sdxl"], cross=2 * TEXT_DIM).write(pulid)
    faceid = _folder(cache, "h94/IP-Adapter-FaceID")
    for name, family in (("ip-adapter-faceid_sd15.bin", "sd"), ("ip-adapter-faceid_sdxl.bin", "sdxl")):
        cross = TEXT_DIM if family == "sd" else 2 * TEXT_DIM
        Published("faceid", name, widths[family], cross=cross, **common).write(faceid)
    unet = make_pipeline("sdxl").unet
    tiny_photomaker("photomaker-v1", unet, 2 * TEXT_DIM, image=64).write(_folder(cache, "TencentARC/PhotoMaker"))


def _write_lora(folder: Path, family: str, name: str) -> None:
    pipeline = make_pipeline(family)
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=name)


def _widths(family: str) -> list[int]:
    return [layer.inner_dim for layer in cross_attention_layers(make_pipeline(family).unet).values()]


def _folder(cache: Path, repo: str) -> Path:
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / REVISION
    if not snapshot.exists():
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(REVISION)
    return snapshot
