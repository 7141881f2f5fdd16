"""Our own form: a folder with `config.json`, safetensors and a model card, as diffusers writes its models."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import create_repo, hf_hub_download, upload_folder
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from ..errors import CheckpointError
from ..files import open_tensors, parse_json, read_json, write_folder
from .building import check_config, limited, refuse_misfits

CONFIG = "config.json"


def load_pretrained(
    kind: type[nn.Module],
    from_pretrained: Callable[..., Any],
    path: str | os.PathLike[str],
    *,
    known_only: bool = False,
    **kwargs: Any,
) -> Any:
    """Call diffusers' `from_pretrained`, and refuse what it lets pass.

    Args:
        kind: A diffusers model class.
        from_pretrained: That of the class.
        path: A folder or a hub id.
        known_only: See `check_config`.
        kwargs: As in diffusers.

    Raises:
        CheckpointError: It cannot be found, is not safetensors, lacks tensors or has others, or its configuration is
            refused by `check_config`.
    """
    path = os.fspath(path)
    if os.path.isdir(path) and kwargs.get("subfolder"):  # diffusers prefers weights that lie above the subfolder
        path = os.path.join(path, kwargs.pop("subfolder"))
    check_config(kind, read_json(_find_config(path, kwargs)), path, known_only)
    with limited(path):
        model, info = from_pretrained(path, **{**kwargs, "use_safetensors": True, "output_loading_info": True})
    mismatched = [key[0] for key in info["mismatched_keys"]]
    refuse_misfits(path, info["missing_keys"], info["unexpected_keys"], mismatched)
    return model


def plain_config(model: Any) -> dict[str, Any]:
    """A model's configuration without what diffusers notes beside it: arguments to make such a model again."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def read_part(file: str | os.PathLike[str], part: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One of several models in a safetensors file: its configuration, from the header, and its tensors.

    Args:
        file: The file.
        part: Its tensors are named `part.…`, and its configuration is in the header under `part`.

    Raises:
        CheckpointError: The file cannot be read, or has no such part.
    """
    with open_tensors(file) as opened:
        header = opened.metadata() or {}
        names = [name for name in opened.keys() if name.startswith(f"{part}.")]  # noqa: SIM118
        state = {name.removeprefix(f"{part}."): opened.get_tensor(name) for name in names}
    if part not in header or not state:
        raise CheckpointError(f"'{file}' holds no {part}.")
    return parse_json(header[part], f"The configuration of {part} in '{file}'"), state


def save_pretrained(
    save_pretrained: Callable[..., Any], folder: str | os.PathLike[str], card: str | None = None, **kwargs: Any
) -> None:
    """Call diffusers' `save_pretrained` beside the target, then move the files there; see `files.write_folder`.

    Args:
        save_pretrained: That of a diffusers model; it is never allowed to write a pickle.
        folder: Made if it does not exist.
        card: Text of the model card, if it gets one.
        kwargs: As in diffusers.
    """
    with write_folder(folder, last=CONFIG) as new:  # without it nothing loads
        save_pretrained(new, **kwargs, safe_serialization=True)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")


def push_to_hub(
    model: Any, repo_id: str, *, private: bool | None = None, token: str | None = None, **kwargs: Any
) -> str:
    """Save a model to a hub repository, card included; returns the address of the commit.

    Args:
        model: Anything with `save_pretrained`.
        repo_id: Made if it does not exist.
        private: Whether a new repository is private.
        token: As in huggingface_hub; so is `kwargs` (`commit_message`, `create_pr`, `revision`).
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return str(upload_folder(repo_id=repo_id, folder_path=folder, token=token, **kwargs))


def _find_config(path: str, hub: Mapping[str, Any]) -> Path:
    folder = Path(path)
    if folder.is_dir():
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            raise CheckpointError(f"'{path}' holds a pickle, which could run code; only safetensors are opened.")
        return folder / CONFIG
    where = ("subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download")
    try:
        return Path(hf_hub_download(path, CONFIG, **{name: hub[name] for name in where if name in hub}))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' is neither a folder nor a hub repository that can be reached. Check the name, the network and "
            f"the token. ({type(error).__name__}: {error})"
        ) from error
