"""docs/comfyui.md: which configurations of an adapter have the tensors that ComfyUI's nodes read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idgen import IdentityAdapter
from idgen.checkpoints.layout import known_layers
from idgen.checkpoints.layouts import layout_of

from .published import FULL, Published, flat

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "instantid": {"projection": "resampler", "num_tokens": 16},
    "faceid": {"projection": "mlp", "num_tokens": 4, "lora_rank": 128},
    "faceid-plus": {"projection": "plus", "num_tokens": 4, "lora_rank": 128},
    "faceid-plusv2": {"projection": {"type": "plus", "shortcut": True}, "num_tokens": 4, "lora_rank": 128},
    "faceid-portrait": {"projection": "mlp", "num_tokens": 16},
    "faceid-portrait-unnorm": {"projection": "resampler", "num_tokens": 16},
}


@pytest.mark.parametrize("file", FULL, ids=lambda file: file.name)
def test_a_new_adapter_has_the_tensors_of_the_published_file(file: Published) -> None:
    config = CONFIGURATIONS[file.variant]
    with torch.device("meta"):
        adapter = IdentityAdapter(
            layers=known_layers(len(file.hidden)),
            cross_attention_dim=file.cross,
            encoder="insightface/buffalo_l",
            embedding_dim=512,
            **config,
        )
        published = flat(
            Published(file.variant, file.name, file.hidden, file.cross, file.tokens, device="meta").make()
        )
    state = adapter.state_dict()
    names = {ours: theirs for theirs, ours in layout_of(adapter.config).names(adapter.config, state).items()}
    found = {names.get(name, name): tensor.shape for name, tensor in state.items()}
    assert found == {name: tensor.shape for name, tensor in published.items()}
