"""Finds an adapter: a folder, a file, or a hub repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..errors import CheckpointError
from ..files import read_text

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def find(path: str | os.PathLike[str], weight_name: str | None = None, **hub: Any) -> Path | None:
    """Find the file of a public adapter.

    Args:
        path: A folder, a file, or a hub id.
        weight_name: The file in the folder or repository, if there are several.
        hub: `subfolder`, `revision`, `token`, `cache_dir`, `local_files_only`; others are ignored.

    Returns:
        The file, or `None` for a folder or repository in this package's own format.

    Raises:
        CheckpointError: The path or file does not exist, or there are several files and `weight_name` is not given.
    """
    local, subfolder = Path(path), hub.get("subfolder") or ""
    if local.is_file():
        return local
    if local.is_dir():
        folder = local / subfolder
        if weight_name is None and _is_ours(folder / "config.json"):
            return None
        chosen = _choose([p.name for p in folder.iterdir()] if folder.is_dir() else [], weight_name, str(folder))
        return folder / chosen
    return _find_on_hub(os.fspath(path), weight_name, subfolder, hub)


def _find_on_hub(repo: str, weight_name: str | None, subfolder: str, hub: dict[str, Any]) -> Path | None:
    where = {key: hub[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in hub}

    def get(name: str) -> Path:
        return Path(hf_hub_download(repo, name, subfolder=subfolder or None, **where))

    try:
        names = [weight_name] if weight_name else _list_files(repo, subfolder, where)
        if weight_name is None and "config.json" in names and _is_ours(get("config.json")):
            return None
        return get(_choose(names, weight_name, repo))
    except (HfHubHTTPError, OSError, ValueError) as error:
        asked = "/".join(filter(None, (repo, subfolder, weight_name)))
        raise CheckpointError(
            f"'{asked}' is neither a folder, a file nor a reachable hub repository. Check the name, the network and "
            f"the token. ({type(error).__name__}: {error})"
        ) from error


def _list_files(repo: str, subfolder: str, where: dict[str, Any]) -> list[str]:
    """Names of a repository's files in a folder; offline, of the cached ones."""
    try:
        if where.get("local_files_only"):
            raise OfflineModeIsEnabled("local_files_only")
        api = HfApi(token=where.get("token"))
        files: Sequence[str] = api.list_repo_files(repo, revision=where.get("revision"))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError):
        cached = Path(snapshot_download(repo, **{**where, "local_files_only": True}))
        files = [file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()]
    at = f"{subfolder.strip('/')}/" if subfolder else ""
    return [file.removeprefix(at) for file in files if file.startswith(at) and "/" not in file.removeprefix(at)]


def _choose(names: Sequence[str], weight_name: str | None, where: str) -> str:
    """The only file with weights, or `weight_name`."""
    files = sorted(name for name in names if name.endswith(SUFFIXES))
    if weight_name is not None:
        if weight_name not in names:
            raise CheckpointError(f"'{where}' contains no '{weight_name}'{_list(files)}.")
        return weight_name
    if len(files) != 1:
        raise CheckpointError(
            f"'{where}' contains {len(files)} files with weights{_list(files)}"
            + ("; choose one with weight_name=." if files else " and no IdentityAdapter.")
        )
    return files[0]


def _list(files: Sequence[str], shown: int = 12) -> str:
    return f" ({', '.join(files[:shown])}{', …' if len(files) > shown else ''})" if files else ""


def _is_ours(config: Path) -> bool:
    """Whether this is the configuration of an `IdentityAdapter`."""
    try:
        return '"IdentityAdapter"' in read_text(config)
    except CheckpointError:
        return False
