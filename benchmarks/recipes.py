"""The usual training recipes, built from diffusers' parts, and random models to train, for `training.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel as UNet
from networks import SD15, SDXL, load_faceid
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from idgen.losses import FaceEmbedder
from idgen.tiny import TINY_PATH
from idgen.training.base import BaseModel
from idgen.training.batch import Batch

EMBEDDING_DIM = 512
FACE = ((0.42, 0.40), (0.575, 0.40), (0.50, 0.48), (0.445, 0.545), (0.56, 0.545))
"""Landmarks of a portrait in shares of the picture's side; the face encoder reads 0.4 of it."""


@dataclass(frozen=True)
class Shape:
    """What is trained on.

    Attributes:
        model: Stable Diffusion 1.5 or XL …
        width: … with this share of their channels; a half has a quarter of the arithmetic, in the same proportions.
        side: Of the pictures, pixels.
        batch: Pictures at once.
        dtype: Of the frozen networks.
        device: Where they compute.
    """

    model: Literal["sd15", "sdxl"]
    width: float
    side: int
    batch: int
    dtype: torch.dtype
    device: torch.device

    def channels(self, *widths: int) -> tuple[int, ...]:
        return tuple(int(width * self.width) for width in widths)


def make_pipeline(shape: Shape) -> Any:
    """A stock pipeline of random weights."""
    torch.manual_seed(0)
    config = dict(SD15 if shape.model == "sd15" else SDXL)
    config["block_out_channels"] = shape.channels(*config.get("block_out_channels", (320, 640, 1280, 1280)))
    (groups,), (small, large) = shape.channels(32), shape.channels(768, 1280)
    config["norm_num_groups"] = groups
    config["cross_attention_dim"] = small if shape.model == "sd15" else small + large
    if shape.model == "sdxl":
        config["projection_class_embeddings_input_dim"] = large + 6 * 256
    vae = {
        "block_out_channels": shape.channels(128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "latent_channels": 4,
        "scaling_factor": 0.18215 if shape.model == "sd15" else 0.13025,
    }
    with shape.device:  # billions of random numbers take minutes on a processor
        networks: dict[str, Any] = {
            "unet": UNet(**config),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(_text(small, 12, 12, "quick_gelu")),
        }
        if shape.model == "sdxl":
            networks["text_encoder_2"] = CLIPTextModelWithProjection(_text(large, 32, 20, "gelu"))
    parts: dict[str, Any] = {
        **networks,
        "tokenizer": CLIPTokenizer.from_pretrained(TINY_PATH / "tokenizer"),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
    }
    if shape.model == "sd15":
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(**parts)
    return StableDiffusionXLPipeline(**parts, tokenizer_2=parts["tokenizer"])


def _text(width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        vocab_size=49408,
    )


def make_batch(shape: Shape, base: BaseModel) -> tuple[Batch, torch.Tensor]:
    """A batch with cached latents and text, and the photos that it was made of, (batch, 3, side, side) in [-1, 1]."""
    random, size = torch.Generator().manual_seed(1), shape.batch
    prompts = tuple(f"a photo of a person in the rain, {i}" for i in range(size))
    batch = Batch(
        latents=torch.randn(size, 4, shape.side // 8, shape.side // 8, generator=random),
        prompts=prompts,
        **cast(dict[str, Any], base.encode(prompts)),
        id_embeds=torch.randn(size, EMBEDDING_DIM, generator=random),
        encoder="random",
        target_embeds=torch.randn(size, 128, generator=random),
        landmarks=(torch.tensor(FACE) * shape.side).expand(size, -1, -1).clone(),
        face_found=torch.ones(size, dtype=torch.bool),
        has_identity=torch.ones(size, dtype=torch.bool),
        persons=torch.arange(size),
        time_ids=torch.tensor([shape.side, shape.side, 0, 0, shape.side, shape.side]).expand(size, -1),
    )
    return batch.to(shape.device), torch.rand(size, 3, shape.side, shape.side, generator=random).to(shape.device)


class FaceIDUNet(torch.nn.Module):
    """A UNet with diffusers' IP-Adapter-FaceID in it, of which projection and processors are trained."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        load_faceid(unet)
        unet.encoder_hid_proj.requires_grad_(True).float()
        for name, processor in unet.attn_processors.items():
            if name.endswith("attn2.processor"):
                processor.requires_grad_(True).float()
        self.unet = unet

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, text: dict[str, torch.Tensor], batch: Batch) -> Any:
        added: dict[str, Any] = {"image_embeds": [batch.id_embeds[:, None, None]]}
        if "text_embeds" in text:
            added |= {"text_embeds": text["text_embeds"], "time_ids": batch.time_ids}
        dtype = self.unet.conv_in.weight.dtype
        words = text["encoder_hidden_states"].to(dtype)
        return self.unet(noisy.to(dtype), t, words, added_cond_kwargs=added).sample


class Recipe:
    """What the two have in common.

    Args:
        base: Its UNet gets the processors; everything else in it is frozen.
        accelerator: Says the precision.
    """

    def __init__(self, base: BaseModel, accelerator: Accelerator) -> None:
        self.base, self.accelerator = base, accelerator
        plain: Any = FaceIDUNet(base.unet)
        self.parameters = [weight for weight in plain.parameters() if weight.requires_grad]
        self.model = accelerator.prepare_model(plain)
        optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-2)
        self.optimizer: Any = accelerator.prepare_optimizer(optimizer)

    def update(self, loss: torch.Tensor) -> None:
        """Learn from a loss."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class PlainFaceID(Recipe):
    """`tutorial_train_faceid.py` of IP-Adapter, less its LoRA: VAE and text encoder run at every step."""

    def step(self, batch: Batch, photos: torch.Tensor) -> None:
        base = self.base
        with torch.no_grad():
            vae = base.pipeline.vae
            latents = vae.encode(photos.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
            text = base.encode(batch.prompts)
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (len(batch),), device=latents.device)
        noisy = base.scheduler.add_noise(latents, noise, t)
        with self.accelerator.autocast():
            output = self.model(noisy, t, text, batch)
            loss = F.mse_loss(output.float(), noise.float())
        self.update(loss)


class PublishedReFL(Recipe):
    """ReFL as in ImageReward's code, with the identity as its reward: the whole picture is decoded with its graph.

    Args:
        base: See `Recipe`; so is `accelerator`.
        steps: Denoising steps, of which the last has a graph.
        embedder: Of faces.
    """

    def __init__(self, base: BaseModel, accelerator: Accelerator, steps: int, embedder: FaceEmbedder) -> None:
        super().__init__(base, accelerator)
        self.steps, self.embedder = steps, embedder

    def step(self, batch: Batch, _: torch.Tensor) -> None:
        scheduler: Any = self.base.pipeline.scheduler
        scheduler.set_timesteps(self.steps, device=batch.latents.device)
        latents = torch.randn_like(batch.latents)
        with self.accelerator.autocast():
            with torch.no_grad():
                text = self.base.encode(batch.prompts)
                for t in scheduler.timesteps[:-1]:
                    output = self.model(latents, t, text, batch)
                    latents = scheduler.step(output.float(), t, latents).prev_sample
            t = scheduler.timesteps[-1]
            output = self.model(latents, t, text, batch)
            clean = scheduler.step(output.float(), t, latents).pred_original_sample
            vae = self.base.pipeline.vae
            images = vae.decode(clean.to(vae.dtype) / vae.config.scaling_factor).sample.float() / 2 + 0.5
        found = self.embedder(images, batch.landmarks)
        reward = torch.cosine_similarity(found, batch.target_embeds)
        self.update(F.relu(2 - reward).mean())
