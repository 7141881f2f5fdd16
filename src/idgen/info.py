"""`idgen info`: describes an adapter or an identity file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .adapter import IdentityAdapter
from .adapter.layers import base_name
from .checkpoints.model_card import describe_fusion, describe_projection
from .files import open_tensors
from .identity import Identity


def info(path: str) -> dict[str, Any]:
    """Facts by name about an identity file, or an adapter's folder, file or hub id.

    Raises:
        IdgenError: The path is neither.
    """
    return _identity_facts(Path(path)) if _is_identity(Path(path)) else _adapter_facts(path)


def _is_identity(path: Path) -> bool:
    """Whether a file is an identity."""
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    with open_tensors(path) as file:
        return "embeddings" in file.keys()  # noqa: SIM118


def _identity_facts(path: Path) -> dict[str, Any]:
    identity = Identity.load(path)
    return {
        "identity": identity.name or "(no name)",
        "photos": len(identity.embeddings),
        "encoder": identity.encoder,
        "embeddings": f"{'unit-length' if identity.normalised else 'raw'}, {identity.dim} numbers",
        "image features": "none" if identity.features is None else identity.image_encoder or "CLIP",
    }


def _adapter_facts(path: str) -> dict[str, Any]:
    adapter = IdentityAdapter.from_pretrained(path)
    config = adapter.config
    return {
        "adapter": path,
        "base": base_name(config["layers"], config["cross_attention_dim"]),
        "blocks": ", ".join(config["blocks"]) or "all",
        "encoder": config["encoder"],
        "embeddings": f"{'unit-length' if config['normalised'] else 'raw'}, {config['embedding_dim']} numbers",
        "projection": describe_projection(config),
        "fusion": "with the class word" if adapter.to_tokens.fuses_text else describe_fusion(config),
        "image features": config["image_encoder"] or ("unnamed" if adapter.to_tokens.reads_features else "none"),
        "pseudo-words": str(config["num_words"] or "none"),
        "parameters": f"{adapter.num_parameters() / 1e6:.1f} million",
    }
