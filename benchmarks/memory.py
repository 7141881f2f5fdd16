"""GPU memory of a training step at real sizes, counted without a GPU: python benchmarks/memory.py [--help]

Networks and tensors are on the meta device, so nothing is computed and no weights are needed. What the step would
allocate is counted as PyTorch would allocate it on a GPU: activations that the backward pass needs, temporary tensors,
gradients. Attention is the memory-efficient kernel, and autocast runs normalisations in float32. The CUDA context
(about 0.5 GiB), the workspace of kernels and the fragmentation of the allocator are not included.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
import tyro
from diffusers import AutoencoderKL
from networks import EMBEDDING_DIM, SD15, SDXL, make_unet
from recipes import FACE
from torch import nn
from torch.autograd import backward
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from idgen import IdentityAdapter
from idgen.faces import DlibEncoder
from idgen.losses import FaceDecoder, FaceEmbedder

META = torch.device("meta")
GIB = 2**30
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
TEXT_PARAMETERS = {"sd15": 123_060_480, "sdxl": 123_060_480 + 694_659_840}
"""Weights of the text encoders, which are loaded with the pipeline."""


class Case(NamedTuple):
    """One row of the table."""

    model: Literal["sd15", "sdxl"]
    side: int
    batch: int
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpointing: bool = False


CASES = (
    *(Case("sd15", 512, batch) for batch in (1, 4, 8, 16)),
    *(Case("sd15", 512, batch, checkpointing=True) for batch in (1, 2, 8)),
    Case("sd15", 512, 4, "fp32"),
    Case("sd15", 768, 4),
    *(Case("sdxl", 1024, batch) for batch in (1, 2, 4, 8)),
    *(Case("sdxl", 1024, batch, checkpointing=True) for batch in (1, 2, 4)),
    Case("sdxl", 1024, 1, "fp32"),
    Case("sdxl", 512, 4),
)


class Need(NamedTuple):
    """GiB that a run needs.

    Attributes:
        fixed: Frozen networks, the adapter, its gradient, and AdamW's two moments.
        denoising: What a step with the denoising loss adds.
        faces: What a step with losses on faces adds.
        reward: What a reward step adds: guidance, a gradient through six steps, and the denoising loss on photos. It
            is counted with gradient checkpointing only.
    """

    fixed: float
    denoising: float
    faces: float
    reward: float | None = None


class Allocations(TorchDispatchMode):
    """Counts the bytes of all storages that are created while it is active, and of those that are alive."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.alive = self.peak = 0
        weights = [weight for network in networks for weight in network.parameters()]
        self._sizes: dict[int, int] = dict.fromkeys((weight.untyped_storage()._cdata for weight in weights), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """Memory-efficient attention, which the meta device would not choose."""
    graph = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, graph)[0]


def autocast(network: nn.Module) -> None:
    """Compute normalisations in float32 and all other layers in the dtype of their weights, as autocast does."""

    def to_dtype(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return args[0].to(next(module.parameters()).dtype), *args[1:]

    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.float()
        if isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(to_dtype)


class Networks:
    """A base model, an adapter with 4 tokens, and dlib's face encoder, on the meta device."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
        self.unet: Any = make_unet(SD15 if case.model == "sd15" else SDXL, META, self.dtype)
        if case.precision == "bf16":
            autocast(self.unet)
        if case.checkpointing:
            self.unet.train().enable_gradient_checkpointing()
        with META:
            self.vae: Any = AutoencoderKL(**VAE)
        self.vae = self.vae.to(self.dtype).eval().requires_grad_(False)
        self.encoder: Any = DlibEncoder().to(META, self.dtype)
        with META:
            self.adapter = IdentityAdapter.from_unet(
                self.unet, encoder="random", embedding_dim=EMBEDDING_DIM, num_tokens=4
            )
        torch.nn.Module.to(self.adapter, self.dtype)
        self.adapter.attach(self.unet)

    @property
    def fixed(self) -> float:
        """GiB that are allocated before the first step ends."""
        frozen = sum(
            w.numel() * w.element_size() for net in (self.unet, self.vae, self.encoder) for w in net.parameters()
        )
        text = TEXT_PARAMETERS[self.case.model] * (2 if self.dtype == torch.bfloat16 else 4)
        trained = sum(weight.numel() for weight in self.adapter.parameters())
        return (frozen + text + trained * 4 * 4) / GIB

    def predict(self, latents: torch.Tensor) -> torch.Tensor:
        rows = len(latents)
        cross = self.unet.config["cross_attention_dim"]
        added = {}
        if self.case.model == "sdxl":
            added = {
                "text_embeds": torch.empty(rows, 1280, **self._options),
                "time_ids": torch.empty(rows, 6, **self._options),
            }
        text = torch.empty(rows, 77, cross, **self._options)
        return self.unet(latents.to(self.dtype), torch.empty(rows, device=META), text, added_cond_kwargs=added).sample

    @property
    def _options(self) -> dict[str, Any]:
        return {"device": META, "dtype": self.dtype}

    @property
    def latents(self) -> torch.Tensor:
        return torch.empty(self.case.batch, 4, self.case.side // 8, self.case.side // 8, device=META)

    def embed(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode the faces' part of the latents, and embed it, as `FaceReader` does."""
        embedder = FaceEmbedder.dlib()
        points = (torch.tensor(FACE) * self.case.side).expand(len(latents), -1, -1)
        decoder = FaceDecoder(vae=self.vae, margin=4, checkpointing=True)
        images = decoder(latents, embedder.boxes(points)).images.float()
        crops = F.interpolate(images, (embedder.size, embedder.size))
        return self.encoder(crops.to(self.dtype)).float()

    @contextmanager
    def identity(self) -> Iterator[None]:
        person = self.adapter.encode(torch.empty(self.case.batch, EMBEDDING_DIM, **self._options))
        with self.adapter.activate([person], num_images=self.case.batch):
            yield

    # -- steps

    def peak(self, step: Callable[[], None]) -> float:
        """GiB that a step allocates at most."""
        for weight in self.adapter.parameters():
            weight.grad = None
        counted = Allocations([self.unet, self.vae, self.encoder, self.adapter])
        with counted, mock.patch.object(F, "scaled_dot_product_attention", attend):
            step()
        return counted.peak / GIB

    def denoise(self) -> None:
        with self.identity():
            backward(self.predict(self.latents).float().square().mean())

    def denoise_faces(self) -> None:
        with self.identity():
            output = self.predict(self.latents).float()
            embeds = self.embed(self.latents - 0.5 * output)
            backward(output.square().mean() + embeds.square().mean())

    def reward(self) -> None:
        with self.identity():
            loss = self.predict(self.latents).float().square().mean()  # the denoising loss on photos
            latents = self.latents
            for _ in range(6):
                negative, positive = self.predict(torch.cat([latents, latents])).float().chunk(2)
                latents = latents - 0.1 * (negative + 3 * (positive - negative))
            backward(loss + self.embed(latents).square().mean())


def measure(case: Case) -> Need:
    """Count one row of the table."""
    networks = Networks(case)
    made = sum(weight.numel() * weight.element_size() for weight in networks.adapter.parameters()) / GIB
    steps = [networks.denoise, networks.denoise_faces, *([networks.reward] if case.checkpointing else [])]
    peaks = [networks.peak(step) - made for step in steps]  # the gradient is a part of `fixed`
    return Need(networks.fixed, *peaks)


def main(model: tuple[Literal["sd15", "sdxl"], ...] = ("sd15", "sdxl")) -> None:
    """Print the table as Markdown.

    Args:
        model: Which sizes.
    """
    print("| | batch | precision | checkpointing | fixed | denoising | with losses on faces | reward |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if case.model in model:
            need = measure(case)
            totals = ["–" if added is None else f"{need.fixed + added:.1f}" for added in need[1:]]
            name = {"sd15": "SD1.5", "sdxl": "SDXL"}[case.model]
            kind = "on" if case.checkpointing else "off"
            cells = [f"{name}, {case.side} px", str(case.batch), case.precision, kind, f"{need.fixed:.1f}", *totals]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
