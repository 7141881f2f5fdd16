"""Trainable modules: an identity adapter, a separate LoRA on the UNet, an IdentityNet; new or continued."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from torch import nn

from ..adapter import IdentityAdapter, IdentityNet
from ..convert import NET
from ..errors import CheckpointError, EncoderMismatchError, MissingDependencyError, TrainingError
from ..faces.expression import EXPRESSION
from ..files import open_tensors, read_tensors, write_tensors
from ..tiny import adapter_place
from .adapter_config import AdapterConfig
from .base import BaseModel
from .config import DenoisingConfig, RewardConfig
from .shard_batches import ShardBatches

LORA_FILE = "pytorch_lora_weights.safetensors"
"""File that `pipeline.load_lora_weights` looks for in a folder."""

_NAME, _PREFIX = "trained", "unet."
_PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]


class TrainableModules(NamedTuple):
    """The trainable modules of a run, as arguments of a `TrainingStep`."""

    adapter: IdentityAdapter | None
    lora: UNetLoRA | None
    identity_net: IdentityNet | None


def make_modules(config: DenoisingConfig | RewardConfig, base: BaseModel, batches: ShardBatches) -> TrainableModules:
    """Create the modules, or load those to continue from, on the base's device, and attach the adapter to the UNet.

    Raises:
        EncoderMismatchError: The adapter reads embeddings of another face encoder than that of the shards.
        CheckpointError: The adapter to continue from cannot be loaded.
        TrainingError: The adapter to continue from has a LoRA of another rank, or reads no people, as rewards need.
    """
    ours = config.adapter if isinstance(config, DenoisingConfig) else None
    given = config.id_adapter if isinstance(config, RewardConfig) else config.adapter.id_adapter
    if given is not None:
        adapter = with_lora(IdentityAdapter.from_pretrained(given), ours.lora_rank if ours else 0)
        adapter.train().requires_grad_(not (ours and ours.frozen))
        if adapter.reads_expression and ours is None:
            raise TrainingError(f"'{given}' reads expressions; rewards need an adapter that reads people.")
    else:
        adapter = _new_adapter(ours, base, batches) if ours else None
    if adapter is not None:
        check_encoder(adapter, batches.encoder)
        if config.data.group == "photo" and config.people.masks == "none":
            adapter = with_places(adapter, config.people.count[1])
        adapter.to(base.unet.device).attach(base.unet)
    folder = None if given is None else Path(adapter_place(given))
    rank = config.unet_lora_rank if isinstance(config, RewardConfig) else config.adapter.unet_lora_rank
    wanted = config.identity_net if isinstance(config, RewardConfig) else config.adapter.identity_net
    net = _identity_net(base, folder) if wanted else None  # before the LoRA: it starts as a copy of the UNet's weights
    return TrainableModules(adapter, _unet_lora(base, rank, folder), net)


def new_identity_net(base: BaseModel) -> IdentityNet:
    """Create an IdentityNet that changes nothing yet and fits the size of the base's latents."""
    return IdentityNet.from_unet(base.unet, conditioning_embedding_out_channels=conditioning_channels(base))


def conditioning_channels(base: BaseModel) -> tuple[int, ...]:
    """The channels of a ControlNet's condition, which is reduced to the size of the base's latents."""
    return (16, 32, 96, 256)[: round(math.log2(base.pipeline.vae_scale_factor)) + 1]


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
    return _extended(adapter, lora_rank=rank)


def with_places(adapter: IdentityAdapter, people: int) -> IdentityAdapter:
    """The adapter with places for several people without masks. New places change nothing until they are trained."""
    return _extended(adapter, ordered=True, max_people=max(adapter.config["max_people"], people))


def _extended(adapter: IdentityAdapter, **config: Any) -> IdentityAdapter:
    """The adapter with other settings; what has no value yet is as in a new adapter."""
    wide = IdentityAdapter.from_config({**adapter.config, **config})
    assert isinstance(wide, IdentityAdapter)
    state = adapter.state_dict()
    if (places := state.pop("places.weight", None)) is not None:
        state["places.weight"] = F.pad(places, (0, 0, 0, wide.config["max_people"] - len(places)))
    wide.load_state_dict(wide.state_dict() | state)
    return wide.train(adapter.training).requires_grad_(next(adapter.parameters()).requires_grad)


def _new_adapter(ours: AdapterConfig, base: BaseModel, batches: ShardBatches) -> IdentityAdapter:
    dataset = batches.loader.dataset
    if batches.encoder == EXPRESSION and ours.normalised:
        raise TrainingError("The length of an expression says how strong it is: train with --no-normalised.")
    words: dict[str, Any] = (
        {"text_encoders": base.text_encoders, "num_words": ours.num_words, "adaptive_words": True}
        if ours.num_words
        else {}
    )
    adapter = IdentityAdapter.from_unet(
        base.unet,
        encoder=batches.encoder,
        embedding_dim=batches.embedding_dim(batches.encoder),
        normalised=ours.normalised,
        projection=ours.projection,
        num_tokens=ours.num_tokens,
        placement=ours.placement,
        blocks=ours.blocks,
        lora_rank=ours.lora_rank,
        **words,
    )
    some = torch.from_numpy(dataset.banks[batches.encoder].embeddings[:10_000].copy())
    adapter.standardise_input(torch.nn.functional.normalize(some, dim=-1) if ours.normalised else some)
    return adapter


def _unet_lora(base: BaseModel, rank: int, folder: Path | None) -> UNetLoRA | None:
    if folder is not None and (folder / LORA_FILE).is_file():
        with open_tensors(folder / LORA_FILE) as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        is_dora = any(len(shape) < 2 for shape in shapes.values())  # the magnitudes of the columns
        lora = UNetLoRA(base.unet, next(min(shape) for shape in shapes.values() if len(shape) == 2), is_dora)
        lora.load(folder)
        return lora
    return UNetLoRA(base.unet, rank) if rank else None


def _identity_net(base: BaseModel, folder: Path | None) -> IdentityNet:
    if folder is not None and (folder / NET).is_dir():
        net = IdentityNet.from_pretrained(folder / NET)
    else:
        net = new_identity_net(base)
    return net.train().requires_grad_(True).to(base.unet.device, torch.float32)


def frozen_adapter(given: str, base: BaseModel) -> IdentityAdapter:
    """A frozen adapter on the base's UNet, beside the one that is trained."""
    adapter = IdentityAdapter.from_pretrained(given)
    adapter.eval().requires_grad_(False).to(base.unet.device).attach(base.unet)
    return adapter


def check_encoder(adapter: IdentityAdapter, found: str) -> None:
    """Raise EncoderMismatchError if an adapter reads embeddings of another face encoder than the one found."""
    trained = adapter.config["encoder"]
    if trained != found:
        raise EncoderMismatchError(
            f"The adapter reads embeddings of '{trained}', and the run reads those of '{found}'. Name the adapter's "
            "encoder with --encoder; `idgen prepare --encoder` caches its embeddings."
        )


class UNetLoRA(nn.Module):
    """A LoRA (PEFT) on all attention projections of a UNet. Its weights are float32 parameters of this module.

    Args:
        unet: Frozen UNet of SD1.5 or SDXL.
        rank: Rank of the LoRA. Alpha equals the rank, so the LoRA has a scale of 1.
        dora: Whether to train magnitudes and directions of the weights separately (DoRA, arXiv 2402.09353).

    Raises:
        TrainingError: The rank is not positive, or the UNet already has a LoRA from training.
        MissingDependencyError: PEFT is not installed.
    """

    def __init__(self, unet: UNet2DConditionModel, rank: int, dora: bool = False) -> None:
        super().__init__()
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise MissingDependencyError("Training a LoRA needs PEFT: pip install 'idgen-diffusers[train]'") from error
        if rank < 1:
            raise TrainingError(f"A LoRA needs a rank of at least 1, not {rank}.")
        if _NAME in getattr(unet, "peft_config", {}):
            raise TrainingError("The UNet already has a LoRA from training; remove it first.")
        config = LoraConfig(
            r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_PROJECTIONS, use_dora=dora
        )
        unet.add_adapter(config, adapter_name=_NAME)
        cast_training_params([unet], dtype=torch.float32)
        self._unet = [unet]  # in a list, so that torch does not register it as a submodule
        trained = {name: weight for name, weight in unet.named_parameters() if f".{_NAME}." in name}
        self.weights = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in trained.items()})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Deactivate the LoRA within the `with`."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [layer for layer in self._unet[0].modules() if isinstance(layer, BaseTunerLayer)]
        before = [layer._disable_adapters for layer in layers]
        for layer in layers:  # `enable_adapters` would also set requires_grad; a scale of 0 keeps DoRA's magnitudes
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, was in zip(layers, before, strict=True):
                layer._disable_adapters = was

    def remove(self) -> None:
        """Remove the LoRA from the UNet."""
        self._unet[0].delete_adapters(_NAME)

    def save(self, folder: Path) -> None:
        """Write the file that `pipeline.load_lora_weights(folder)` loads."""
        from peft import get_peft_model_state_dict

        state = convert_state_dict_to_diffusers(get_peft_model_state_dict(self._unet[0], adapter_name=_NAME))
        tensors = {f"{_PREFIX}{name}": weight.detach() for name, weight in state.items()}
        write_tensors(folder / LORA_FILE, tensors, {"format": "pt"})

    def load(self, folder: Path) -> None:
        """Load what `save` wrote for the same UNet and rank.

        Raises:
            CheckpointError: The file cannot be read, or belongs to another LoRA.
        """
        from peft import set_peft_model_state_dict

        file = folder / LORA_FILE
        tensors, _ = read_tensors(file)
        state = convert_unet_state_dict_to_peft({name.removeprefix(_PREFIX): t for name, t in tensors.items()})
        if len(state) != len(self.weights):
            raise CheckpointError(f"'{file}' has {len(state)} tensors; this LoRA has {len(self.weights)}.")
        try:
            found: Any = set_peft_model_state_dict(self._unet[0], state, _NAME)
        except RuntimeError as error:
            raise CheckpointError(f"'{file}' does not fit this LoRA: {error}") from error
        if unexpected := found.unexpected_keys:
            raise CheckpointError(f"'{file}' is for another UNet: {', '.join(sorted(unexpected)[:3])}, …")
