"""`temp_folder`: where the demo keeps files; it is deleted when the program ends, also by a signal."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

PREFIX = "idgen-demo-"
LOCK = ".lock"

YOUNG = 60
"""Seconds for which an unlocked folder is kept: the process that made it is about to lock it."""


@functools.cache
def temp_folder() -> Path:
    """The folder of this process, in `GRADIO_TEMP_DIR` or the system's folder for temporary files.

    Folders of demos that were killed are deleted first. The process holds the lock of its folder until it ends. Gradio
    and Matplotlib are told to keep their files there too.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    delete_dead_folders(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
    lock = FileLock(folder / LOCK)
    lock.acquire(blocking=False)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))  # Gradio imports it, and it writes a cache
    _delete_at_exit(folder, lock)
    return folder


def delete_dead_folders(parent: Path) -> None:
    """Delete the folders of demos whose processes have ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            status = folder.lstat()
            if folder.is_symlink() or status.st_uid != os.getuid() or time.time() - status.st_mtime < YOUNG:
                continue
            with FileLock(folder / LOCK, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):  # it is in use, or another demo has deleted it
            continue


def _delete_at_exit(folder: Path, lock: FileLock) -> None:
    owner = os.getpid()

    def delete() -> None:
        if os.getpid() == owner:  # not in a forked process
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()

    def end(number: int, _: FrameType | None) -> None:
        delete()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    atexit.register(delete)
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has only the first
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
