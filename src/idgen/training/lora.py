"""A LoRA on the base's UNet that is trained, alone or beside an adapter, and saved as diffusers takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from torch import nn

from ..errors import CheckpointError, MissingDependencyError, TrainingError
from ..files import read_tensors, write_tensors

FILE = "pytorch_lora_weights.safetensors"
"""What `pipeline.load_lora_weights` looks for in a folder."""

NAME, PREFIX = "trained", "unet."
MAPS = ["to_q", "to_k", "to_v", "to_out.0"]


class UNetLoRA(nn.Module):
    """PEFT's LoRA on all attention maps of a UNet; its parameters are parts of this module, in float32.

    Args:
        unet: Of SD1.5 or SDXL, frozen.
        rank: Of the additions. Their strength, alpha, is the same number, so that they count once.

    Raises:
        TrainingError: The rank is not positive, or the UNet has a LoRA of a training already.
        MissingDependencyError: PEFT is not installed.
    """

    def __init__(self, unet: Any, rank: int) -> None:
        super().__init__()
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise MissingDependencyError("Training a LoRA needs PEFT: pip install 'idgen-diffusers[train]'") from error
        if rank < 1:
            raise TrainingError(f"A LoRA needs a rank of at least 1, not {rank}.")
        if NAME in getattr(unet, "peft_config", {}):
            raise TrainingError("The UNet has a LoRA of a training already; remove it first.")
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=MAPS)
        unet.add_adapter(config, adapter_name=NAME)
        cast_training_params([unet], dtype=torch.float32)
        self._unet = [unet]  # where torch does not look for parts of ours
        trained = {name: weight for name, weight in unet.named_parameters() if f".{NAME}." in name}
        self.weights = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in trained.items()})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the UNet draw without it inside the `with`."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [layer for layer in self._unet[0].modules() if isinstance(layer, BaseTunerLayer)]
        for layer in layers:  # disabling them would also stop the training
            layer.set_scale(NAME, 0.0)
        try:
            yield
        finally:
            for layer in layers:
                layer.set_scale(NAME, 1.0)

    def remove(self) -> None:
        """Leave the UNet as it was."""
        self._unet[0].delete_adapters(NAME)

    def save(self, folder: Path) -> None:
        """Write the file that `pipeline.load_lora_weights(folder)` takes."""
        from peft import get_peft_model_state_dict

        state = convert_state_dict_to_diffusers(get_peft_model_state_dict(self._unet[0], adapter_name=NAME))
        tensors = {f"{PREFIX}{name}": weight.detach() for name, weight in state.items()}
        write_tensors(folder / FILE, tensors, {"format": "pt"})

    def load(self, folder: Path) -> None:
        """Take what `save` wrote, for the same UNet and rank.

        Raises:
            CheckpointError: The file cannot be read, or is another LoRA's.
        """
        from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
        from peft import set_peft_model_state_dict

        tensors, _ = read_tensors(folder / FILE)
        state = convert_unet_state_dict_to_peft({name.removeprefix(PREFIX): t for name, t in tensors.items()})
        if len(state) != len(self.weights):
            raise CheckpointError(f"'{folder / FILE}' has {len(state)} tensors; this LoRA has {len(self.weights)}.")
        try:
            found: Any = set_peft_model_state_dict(self._unet[0], state, NAME)
        except RuntimeError as error:
            raise CheckpointError(f"'{folder / FILE}' does not fit this LoRA: {error}") from error
        if unexpected := found.unexpected_keys:
            raise CheckpointError(f"'{folder / FILE}' is for another UNet: {', '.join(sorted(unexpected)[:3])}, …")
