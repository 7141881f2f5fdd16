"""What a run trains, by its configuration: an adapter, a LoRA, an IdentityNet; new ones, or ones to go on with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..adapter import IdentityAdapter, IdentityNet
from ..convert import NET
from ..errors import EncoderMismatchError, TrainingError
from ..files import open_tensors
from .base import BaseModel
from .config import AdapterConfig, DenoisingConfig, RewardConfig
from .lora import FILE, UNetLoRA
from .shard_batches import ShardBatches


class Parts(NamedTuple):
    """As `TrainingStep` takes them."""

    adapter: IdentityAdapter | None
    lora: UNetLoRA | None
    identity_net: IdentityNet | None


def make_parts(config: DenoisingConfig | RewardConfig, base: BaseModel, batches: ShardBatches) -> Parts:
    """Make or open the parts, on the base's device, and attach the adapter.

    Raises:
        EncoderMismatchError: The adapter reads embeddings of another encoder than the shards hold.
        CheckpointError: The adapter to go on with cannot be opened.
        TrainingError: The adapter to go on with has a LoRA of another rank.
    """
    given = given_adapter(config)
    ours = config.adapter if isinstance(config, DenoisingConfig) else None
    if given is not None:
        adapter = with_lora(IdentityAdapter.from_pretrained(given), ours.lora_rank if ours else 0)
        adapter.train().requires_grad_(not (ours and ours.frozen))
    else:
        adapter = _new_adapter(ours, base, batches) if ours else None
    if adapter is not None:
        _check_encoder(adapter, batches)
        adapter.to(base.unet.device).attach(base.unet)
    folder = None if given is None else Path(given)
    rank = config.unet_lora_rank if isinstance(config, RewardConfig) else config.adapter.unet_lora_rank
    wanted = ours is not None and ours.identity_net
    net = _identity_net(base, wanted, folder)  # before the LoRA: it begins as a copy of the UNet's weights
    return Parts(adapter, _lora(base, rank, folder), net)


def new_identity_net(base: BaseModel) -> IdentityNet:
    """One that changes nothing yet, whose first layers make a picture as small as the base's latents."""
    channels = (16, 32, 96, 256)[: round(math.log2(base.pipeline.vae_scale_factor)) + 1]
    return IdentityNet.from_unet(base.unet, conditioning_embedding_out_channels=channels)


def with_lora(adapter: IdentityAdapter, rank: int) -> IdentityAdapter:
    """The adapter with a LoRA of this rank, which changes nothing until it is trained; rank 0 keeps it as it is.

    Raises:
        TrainingError: It has a LoRA of another rank.
    """
    found = adapter.config["lora_rank"]
    if rank in (0, found):
        return adapter
    if found:
        raise TrainingError(f"The adapter has a LoRA of rank {found}: lora_rank={rank} cannot change it.")
    wide: Any = IdentityAdapter.from_config({**adapter.config, "lora_rank": rank})
    wide.load_state_dict(adapter.state_dict() | wide.loras.state_dict(prefix="loras."))
    return wide


def given_adapter(config: DenoisingConfig | RewardConfig) -> str | None:
    """The adapter to go on with, if there is one."""
    return config.id_adapter if isinstance(config, RewardConfig) else config.adapter.id_adapter


def _new_adapter(ours: AdapterConfig, base: BaseModel, batches: ShardBatches) -> IdentityAdapter:
    bank = batches.loader.dataset.bank
    words: dict[str, Any] = (
        {"text_encoders": base.text_encoders, "num_words": ours.num_words} if ours.num_words else {}
    )
    adapter = IdentityAdapter.from_unet(
        base.unet,
        encoder=batches.loader.dataset.manifest.encoder,
        embedding_dim=bank.embeddings.shape[1],
        normalised=ours.normalised,
        projection=ours.projection,
        num_tokens=ours.num_tokens,
        lora_rank=ours.lora_rank,
        **words,
    )
    some = torch.from_numpy(bank.embeddings[:10_000].copy())
    adapter.standardise_input(torch.nn.functional.normalize(some, dim=-1) if ours.normalised else some)
    return adapter


def _lora(base: BaseModel, rank: int, folder: Path | None) -> UNetLoRA | None:
    saved = folder / FILE if folder is not None and (folder / FILE).is_file() else None
    if saved is not None:
        with open_tensors(saved) as file:
            rank = next(min(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    if not rank:
        return None
    lora = UNetLoRA(base.unet, rank)
    if saved is not None:
        lora.load(saved.parent)
    return lora


def _identity_net(base: BaseModel, wanted: bool, folder: Path | None) -> IdentityNet | None:
    if folder is not None and (folder / NET).is_dir():
        net = IdentityNet.from_pretrained(folder / NET)
    elif wanted:
        net = new_identity_net(base)
    else:
        return None
    return net.train().requires_grad_(True).to(base.unet.device, torch.float32)


def _check_encoder(adapter: IdentityAdapter, batches: ShardBatches) -> None:
    trained, found = adapter.config["encoder"], batches.loader.dataset.manifest.encoder
    if trained != found:
        raise EncoderMismatchError(f"The adapter reads embeddings of '{trained}', the shards hold those of '{found}'.")
