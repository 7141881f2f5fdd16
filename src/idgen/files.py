"""Files: atomic writes, locks, and reading files from untrusted sources within limits."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError, IdgenError

if TYPE_CHECKING:
    import torch

PARTIAL = ".partial"
"""Suffix of files that are being written. One that a killed process left behind can be deleted."""

LOCK = ".lock"
"""Name of the file in a folder that is locked."""

MAX_JSON_BYTES = 1 << 24
"""Largest JSON that is parsed; parsing can take 20 times as much memory."""

MAX_JSON_DEPTH = 32
FilePath = str | os.PathLike[str]


@contextmanager
def write_whole(path: FilePath, error: type[IdgenError] = CheckpointError) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path, which replaces `path` when the block ends without an error.

    The temporary file is in the same folder, which is made if it does not exist. File and folder are flushed to the
    disk, and the mode follows the umask.

    Args:
        path: Replaced if it exists.
        error: Type of error to raise.

    Raises:
        IdgenError: The file cannot be written, of the type `error`. Nothing is left behind, and an older file stays.
    """
    target = Path(path)
    new = target.parent / f".{uuid.uuid4().hex[:12]}{PARTIAL}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.touch(exist_ok=False)
        mode = new.stat().st_mode
        yield new
        _settle(new, mode)
        os.replace(new, target)
        sync(target.parent)
    except (OSError, SafetensorError) as problem:
        raise error(unwritten(target, problem)) from problem
    finally:
        with suppress(OSError):  # if its folder is a file, that error is raised already
            new.unlink()


@contextmanager
def write_folder(
    folder: FilePath, last: str | None = None, error: type[IdgenError] = CheckpointError
) -> Iterator[Path]:
    """Write entries of a folder atomically: yields an empty folder, whose files and folders then move to `folder`.

    Args:
        folder: Made if it does not exist; entries of the same names are replaced.
        last: Entry that is moved after all others, so that its presence says that the folder is complete.
        error: Type of error to raise.

    Raises:
        IdgenError: The folder cannot be written, of the type `error`.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".saving", suffix=PARTIAL) as temporary:
            probe = Path(temporary, uuid.uuid4().hex)
            probe.touch()
            mode = probe.stat().st_mode
            probe.unlink()
            yield Path(temporary)
            for file in Path(temporary).rglob("*"):
                if file.is_file():
                    _settle(file, mode)
            for entry in sorted(Path(temporary).iterdir(), key=lambda entry: entry.name == last):
                if entry.is_dir():
                    shutil.rmtree(target / entry.name, ignore_errors=True)
                os.replace(entry, target / entry.name)
            sync(target)
    except (OSError, SafetensorError) as problem:
        raise error(unwritten(target, problem)) from problem


@contextmanager
def locked(folder: FilePath, error: type[IdgenError] = CheckpointError) -> Iterator[None]:
    """Keep other processes from writing into a folder, which is made if it does not exist.

    The lock ends with the process, even with a killed one. It can be nested within a process.

    Args:
        folder: On a local disk.
        error: Type of error to raise.

    Raises:
        IdgenError: Another process holds the lock, or the folder cannot be written, of the type `error`.
    """
    file = Path(folder, LOCK)
    lock = FileLock(file, blocking=False, is_singleton=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as problem:
        raise error(
            f"Another process is writing to '{folder}'. Wait until it ends, or use another folder."
        ) from problem
    except OSError as problem:
        raise error(unwritten(folder, problem)) from problem
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)
        lock.release()


def write_bytes(path: FilePath, content: bytes, error: type[IdgenError] = CheckpointError) -> None:
    """Write a file atomically; see `write_whole`."""
    with write_whole(path, error) as new:
        new.write_bytes(content)


def write_tensors(
    path: FilePath,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    error: type[IdgenError] = CheckpointError,
) -> None:
    """Write a safetensors file atomically; see `write_whole`."""
    from safetensors.torch import save_file  # here, because it imports torch

    with write_whole(path, error) as new:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, metadata=dict(metadata or {}))


def sync(path: FilePath) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    with suppress(PermissionError):  # Windows does not open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def file_size(path: FilePath, limit: int | None = None, error: type[IdgenError] = CheckpointError) -> int:
    """Size of a regular file in bytes.

    Raises:
        IdgenError: The file does not exist, is not a regular file (a folder or a pipe), or is larger than the limit.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise error(f"'{path}' is not a file." if path.exists() else f"There is no file '{path}'.")
        size = path.stat().st_size
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        raise error(f"{str(path)!r} cannot be read: {problem}") from problem
    if limit is not None and size > limit:
        raise error(f"'{path}' has {size:,} bytes, more than the {limit:,} that such a file may have.")
    return size


def read_text(path: FilePath, limit: int = MAX_JSON_BYTES, error: type[IdgenError] = CheckpointError) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        IdgenError: It cannot be read, is larger than `limit` bytes, or is in another encoding.
    """
    file_size(path, limit, error)
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"'{os.fspath(path)}' cannot be read: {problem}") from problem


def read_json(path: FilePath, error: type[IdgenError] = CheckpointError) -> Any:
    """Read a JSON file in UTF-8; raises like `read_text` and `parse_json`."""
    return parse_json(read_text(path, error=error), f"'{os.fspath(path)}'", error)


def parse_json(text: str | bytes, where: str, error: type[IdgenError] = CheckpointError) -> Any:
    """Parse JSON.

    Args:
        text: Text, or bytes in UTF-8.
        where: Description of the text for the error message.
        error: Type of error to raise.

    Raises:
        IdgenError: The text is not JSON, too long, nested too deeply, or contains an unpaired surrogate, which cannot
            be encoded.
    """
    if len(text) > MAX_JSON_BYTES:
        raise error(f"{where} is longer than the {MAX_JSON_BYTES:,} bytes that JSON may have here.")
    try:
        value = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
        level: list[Any] = [value]
        for _ in range(MAX_JSON_DEPTH):
            for part in level:
                if isinstance(part, str):
                    part.encode()
            level = [inner for part in level for inner in _inner(part)]
            if not level:
                return value
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not valid JSON: {problem}") from problem
    raise error(f"{where} is nested more than {MAX_JSON_DEPTH} levels deep.")


@contextmanager
def open_tensors(path: FilePath, error: type[IdgenError] = CheckpointError) -> Iterator[Any]:
    """Open a safetensors file as a context manager; tensors are read inside of it.

    Raises:
        IdgenError: The file cannot be read, or is not safetensors.
    """
    file_size(path, error=error)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (
        OSError,
        SafetensorError,
        AttributeError,
        TypeError,
        ValueError,
    ) as problem:  # and types torch lacks
        raise error(f"'{os.fspath(path)}' cannot be read as safetensors: {problem}") from problem


def read_tensors(
    path: FilePath, limit: int | None = None, error: type[IdgenError] = CheckpointError
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a safetensors file by name, and its metadata; raises like `open_tensors` and `file_size`."""
    file_size(path, limit, error)
    with open_tensors(path, error) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _settle(file: Path, mode: int) -> None:
    """Set the mode of a written file, since libraries choose modes of their own, and flush it."""
    file.chmod(mode)
    sync(file)


def unwritten(place: FilePath, problem: Exception) -> str:
    """The error message for a file that could not be written."""
    told = re.search(r"os error (\d+)", str(problem))  # the number is in the text of safetensors' errors
    number = int(told[1]) if told else getattr(problem, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free disk space" if full else "Check the path"
    return f"'{place}' could not be written: {problem}. {advice} and run the same command again."
