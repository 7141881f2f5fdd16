"""The state of the running call, kept apart from the networks that calls share.

Networks are shared, copied, compiled and called from threads, so the state of one call must not be stored on them. A
call keeps its state in a context variable, by owner (an adapter or an `IdentityNet`). Hooks look it up at each forward
(see `hooks.ForwardHooks`). A call that activates nothing finds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from weakref import WeakKeyDictionary

_active: ContextVar[Mapping[int, object]] = ContextVar("idgen_active", default=MappingProxyType({}))
_locks: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_in_use: WeakKeyDictionary[object, int] = WeakKeyDictionary()
_registry = threading.Lock()


@contextmanager
def active(owner: object, state: object | None) -> Iterator[None]:
    """Make `state` the active state of `owner` inside the `with`, in this thread and context only.

    `None` deactivates the owner. Contexts nest; the outer state is active again afterwards.
    """
    with _registry:
        _in_use[owner] = _in_use.get(owner, 0) + 1
    token = _active.set({**_active.get(), id(owner): state})
    try:
        yield
    finally:
        _active.reset(token)
        with _registry:
            _in_use[owner] -= 1


@contextmanager
def deactivate_all() -> Iterator[None]:
    """Deactivate the states of all owners inside the `with`, in this thread and context only."""
    token = _active.set({})
    try:
        yield
    finally:
        _active.reset(token)


def active_state(owner: object) -> object | None:
    """The state that the running call has activated for `owner`, or `None`."""
    return _active.get().get(id(owner))


def in_use(owner: object) -> bool:
    """Whether a call in any thread has activated a state of `owner`."""
    return _in_use.get(owner, 0) > 0


def lock_of(shared: object) -> threading.RLock:
    """The lock of an object that calls share; each forward of a hooked module takes it. Copies have their own."""
    with _registry:
        return _locks.setdefault(shared, threading.RLock())
