"""This package's format: a folder with `config.json`, safetensors and a model card, as in diffusers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import create_repo, hf_hub_download, upload_folder
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from torch import nn

from ..errors import CheckpointError
from ..files import open_tensors, parse_json, read_json, write_folder
from .building import check_config, limited, refuse_misfits
from .model_card import with_places

CONFIG = "config.json"


def load_pretrained(
    kind: type[nn.Module],
    from_pretrained: Callable[..., Any],
    path: str | os.PathLike[str],
    *,
    known_only: bool = False,
    **kwargs: Any,
) -> Any:
    """Call diffusers' `from_pretrained` with stricter checks.

    Args:
        kind: A diffusers model class.
        from_pretrained: The class's `from_pretrained`.
        path: A folder or a hub id.
        known_only: See `check_config`.
        kwargs: As in diffusers.

    Raises:
        CheckpointError: The model cannot be found, is not safetensors, has missing or unexpected tensors, or
            `check_config` refuses its configuration.
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
    """A model's configuration without diffusers' private entries: arguments of its class."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def read_part(file: str | os.PathLike[str], part: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read one of several models in a safetensors file: its configuration, from the header, and its tensors.

    Args:
        file: The file.
        part: Prefix of its tensors (`part.…`), and the key of its configuration in the header.

    Raises:
        CheckpointError: The file cannot be read, or has no such part.
    """
    with open_tensors(file) as opened:
        header = opened.metadata() or {}
        names = [name for name in opened.keys() if name.startswith(f"{part}.")]  # noqa: SIM118
        state = {name.removeprefix(f"{part}."): opened.get_tensor(name) for name in names}
    if part not in header or not state:
        raise CheckpointError(f"'{file}' contains no {part}.")
    return parse_json(header[part], f"The configuration of {part} in '{file}'"), state


def save_pretrained(
    save_pretrained: Callable[..., Any], folder: str | os.PathLike[str], card: str | None = None, **kwargs: Any
) -> None:
    """Call diffusers' `save_pretrained` atomically; see `files.write_folder`.

    Args:
        save_pretrained: `save_pretrained` of a diffusers model; it always writes safetensors.
        folder: Created if it does not exist.
        card: Text of the model card, or `None` for no card.
        kwargs: As in diffusers.
    """
    with write_folder(folder, last=CONFIG) as new:  # without it nothing loads
        save_pretrained(new, **kwargs, safe_serialization=True)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")


def push_to_hub(
    model: Any, repo_id: str, *, private: bool | None = None, token: str | None = None, **kwargs: Any
) -> str:
    """Save a model to a hub repository, with its card; returns the URL of the commit.

    Args:
        model: A model with `save_pretrained`.
        repo_id: Created if it does not exist.
        private: Whether a new repository is private.
        token: Access token of the hub.
        kwargs: As in `huggingface_hub.upload_folder` (`commit_message`, `create_pr`, `revision`).
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        _name_repository(Path(folder), repo_id)
        return str(upload_folder(repo_id=repo_id, folder_path=folder, token=token, **kwargs))


def _name_repository(folder: Path, repo_id: str) -> None:
    """Name the repository in the code of a model card."""
    card = folder / "README.md"
    if card.exists():
        card.write_text(with_places(card.read_text(encoding="utf-8"), repo_id), encoding="utf-8")


def find_file(path: str | os.PathLike[str], name: str, **hub: Any) -> Path | None:
    """A further file of a model that `load_pretrained` has loaded; None if there is none.

    Args:
        path: A folder or a hub id.
        name: Name of the file.
        hub: As in diffusers, `subfolder` among them; others than those of the hub are ignored.

    Raises:
        CheckpointError: The hub cannot be reached.
    """
    if os.path.isdir(path):
        file = Path(path, hub.get("subfolder") or "", name)
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(os.fspath(path), name, **_of_hub(hub)))
    except EntryNotFoundError:
        return None
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise CheckpointError(f"'{name}' of '{path}' cannot be fetched. ({type(error).__name__}: {error})") from error


def _of_hub(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of diffusers that the hub reads."""
    names = ("subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download")
    return {name: options[name] for name in names if name in options}


def _find_config(path: str, hub: Mapping[str, Any]) -> Path:
    folder = Path(path)
    if folder.is_dir():
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            raise CheckpointError(f"'{path}' contains a pickle, which could run code. Only safetensors are loaded.")
        return folder / CONFIG
    try:
        return Path(hf_hub_download(path, CONFIG, **_of_hub(hub)))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise CheckpointError(
            f"'{path}' is neither a folder nor a reachable hub repository. Check the name, the network and the token. "
            f"({type(error).__name__}: {error})"
        ) from error
