"""Our own form: a folder with `config.json`, safetensors and a model card, as diffusers writes its models."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import create_repo, upload_folder
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import CheckpointError


def load_pretrained(from_pretrained: Callable[..., Any], path: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Call diffusers' `from_pretrained`, and refuse what it lets pass.

    Args:
        from_pretrained: That of a diffusers model class.
        path: A folder or a hub id.
        kwargs: As in diffusers.

    Raises:
        CheckpointError: It cannot be found, is not safetensors, or lacks tensors, or has others.
    """
    path = os.fspath(path)
    if os.path.isdir(path) and kwargs.get("subfolder"):  # diffusers prefers weights that lie above the subfolder
        path = os.path.join(path, kwargs.pop("subfolder"))
    try:
        model, info = from_pretrained(path, **{**kwargs, "use_safetensors": True, "output_loading_info": True})
    except (OSError, HfHubHTTPError, SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(_reason(path, error)) from error
    mismatched = [key[0] for key in info["mismatched_keys"]]
    _refuse_misfits(path, info["missing_keys"], info["unexpected_keys"], mismatched)
    return model


def plain_config(model: Any) -> dict[str, Any]:
    """A model's configuration without what diffusers notes beside it: arguments to make such a model again."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], path: str) -> None:
    """Give a model, which may lie on the meta device, these tensors and no others.

    Raises:
        CheckpointError: Tensors are missing, or of another shape, or there are others.
    """
    wanted = model.state_dict()
    mismatched = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    _refuse_misfits(path, list(wanted.keys() - state.keys()), list(state.keys() - wanted.keys()), mismatched)
    model.load_state_dict(dict(state), assign=True)


def read_part(file: str | os.PathLike[str], part: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One of several models in a safetensors file: its configuration, from the header, and its tensors.

    Args:
        file: The file.
        part: Its tensors are named `part.…`, and its configuration is in the header under `part`.

    Raises:
        CheckpointError: The file cannot be read, or has no such part.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            names = [name for name in opened.keys() if name.startswith(f"{part}.")]  # noqa: SIM118
            state = {name.removeprefix(f"{part}."): opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{file}' could not be read: {error}") from error
    if part not in header or not state:
        raise CheckpointError(f"'{file}' holds no {part}.")
    return json.loads(header[part]), state


def save_pretrained(
    save_pretrained: Callable[..., Any], folder: str | os.PathLike[str], card: str, **kwargs: Any
) -> None:
    """Call diffusers' `save_pretrained` beside the target, then move the files there, so that none is ever half there.

    Args:
        save_pretrained: That of a diffusers model; it is never allowed to write a pickle.
        folder: Made if it does not exist.
        card: Text of the model card.
        kwargs: As in diffusers.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".saving") as temporary:
        save_pretrained(temporary, **kwargs, safe_serialization=True)
        Path(temporary, "README.md").write_text(card)
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, target / file.name)  # the config last: without it nothing loads


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


def _refuse_misfits(path: str, missing: list[str], unexpected: list[str], mismatched: list[str]) -> None:
    problems = {"lacks": missing, "has besides": unexpected, "has with another shape": mismatched}
    found = [f"{what} {_names(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"'{path}' does not fit the model it is opened as: it {'; '.join(found)}.")


def _reason(path: str, error: Exception) -> str:
    if Path(path).is_dir():
        if any(Path(path).glob("*.bin")) and not any(Path(path).glob("*.safetensors")):
            return f"'{path}' holds a pickle, which could run code; only safetensors are opened."
        return f"'{path}' could not be opened as an adapter: {error}"
    return (
        f"'{path}' is neither a folder nor a hub repository that can be reached. Check the name, the network and the "
        f"token. ({type(error).__name__}: {error})"
    )


def _names(keys: list[str], shown: int = 8) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
