"""A program that runs `idgen` commands one after the other where nothing can leave the machine, and notes who tried.

    python -m tests.no_network NOTES generate … -- demo …

Python's own sockets are watched by an audit hook. Libraries in other languages do not pass it, so the kernel ends the
process when anybody opens a socket for datagrams, which is how a name is looked up.
"""

from __future__ import annotations

import ctypes
import ipaddress
import platform
import struct
import sys
import traceback
from itertools import groupby
from pathlib import Path
from typing import Any

SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
ALLOW, KILL = 0x7FFF0000, 0x80000000
LOAD, MASK, IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER, FAMILY, KIND = 0, 16, 24  # offsets of the call's number and of its first two arguments


def kill_who_opens_datagrams() -> None:
    """Linux ends this process when it opens a socket of an internet family for datagrams (seccomp)."""
    call = SOCKET_CALL.get(platform.machine())
    if sys.platform != "linux" or call is None:
        return
    program = [
        (LOAD, 0, 0, NUMBER),
        (IF_EQUAL, 0, 7, call),
        (LOAD, 0, 0, FAMILY),
        (IF_EQUAL, 1, 0, 2),  # AF_INET
        (IF_EQUAL, 0, 4, 10),  # AF_INET6
        (LOAD, 0, 0, KIND),
        (MASK, 0, 0, 0xF),
        (IF_EQUAL, 0, 1, 2),  # SOCK_DGRAM
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, header):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def refuse(notes: Path) -> None:
    """Refuse connections to other machines and look-ups of their names, and write down who asked."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        if not _is_here(host):
            with notes.open("a") as file:
                file.write(f"{event} {host!r}\n{''.join(traceback.format_stack(limit=12))}\n")
            raise PermissionError(f"{event} {host!r}")

    sys.addaudithook(hook)


def _is_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


if __name__ == "__main__":
    refuse(Path(sys.argv[1]))
    kill_who_opens_datagrams()
    from idgen.cli import main

    for ends, words in groupby(sys.argv[2:], lambda word: word == "--"):
        if not ends:
            sys.argv = ["idgen", *words]
            main()
