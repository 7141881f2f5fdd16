"""`Gate`: which HTTP requests reach the page at all."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

MAX_BODY = 2**20
"""Bytes of a request that uploads nothing."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})


class Gate:
    """ASGI middleware that refuses requests for another host, from another site's pages, and that are too large.

    A page of another site can reach this server through the visitor's browser, also by a name of its own that it has
    resolved to this computer's address ("DNS rebinding"). Its requests name that site in `Origin`, or in `Host`.

    Args:
        app: The application behind it.
        listening: Address that the server listens at. At one that stands for all, the page may be asked for by any
            numeric address, which another site cannot take for itself, and by this computer's name.
        allowed: Further names by which it may be asked for.
        max_upload: Bytes of a request that uploads files.
    """

    def __init__(self, app: Any, listening: str, allowed: Collection[str], max_upload: int) -> None:
        self.app, self.max_upload = app, max_upload
        self.allowed = frozenset(name.lower() for name in allowed)
        self.everywhere = listening in EVERYWHERE
        own = socket.gethostname() if self.everywhere else listening
        self.hosts = LOOPBACK | self.allowed | {own.lower()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or hand it on."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            status, reason = refusal
            await PlainTextResponse(reason, status)(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(f"//{host}"):
            return 421, "This server is not known by that name; whoever started it can allow it: --allow-host NAME."
        if origin is not None and urlsplit(origin).netloc != host and _hostname(origin) not in self.allowed:
            return 403, "Pages of other sites cannot use this server."
        if "=" in path and "://" in unquote(path):
            return 403, "This server fetches nothing from others."
        if headers.get("transfer-encoding"):
            return 411, "The length of a request must be given."
        length = headers.get("content-length", "0")
        limit = self.max_upload if path.rstrip("/").endswith(("/upload", "/component_server")) else MAX_BODY
        if not length.isdecimal() or len(length) > 12 or int(length) > limit:
            return 413, f"A request has at most {limit:,} bytes."
        return None

    def _is_ours(self, url: str) -> bool:
        name = _hostname(url)
        return name in self.hosts or (self.everywhere and _is_address(name))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
