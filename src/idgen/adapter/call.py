"""The state of the running call, and how hooks on a shared network find it.

Networks are shared, copied, compiled and called from threads, so what one call needs must not be stored on them. A
call keeps its state in a context variable. Each forward of a hooked network takes the network's lock, binds the state
of its caller to the hooks, and unbinds it at the end. A call that activates nothing finds nothing.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..errors import AdapterError
from .hooks import Owner, owner_of

_active: ContextVar[Mapping[int, Any]] = ContextVar("idgen_active", default=MappingProxyType({}))
_locks: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_in_use: WeakKeyDictionary[object, int] = WeakKeyDictionary()
_registry = threading.Lock()


@contextmanager
def activate(owner: object, state: object | None) -> Iterator[None]:
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
def nothing_active() -> Iterator[None]:
    """Deactivate the states of all owners inside the `with`, in this thread and context only."""
    token = _active.set({})
    try:
        yield
    finally:
        _active.reset(token)


def active_state(owner: object) -> Any | None:
    """The state that the running call has activated for `owner`, or `None`."""
    return _active.get().get(id(owner))


def in_use(owner: object) -> bool:
    """Whether a call in any thread has activated a state of `owner`."""
    return _in_use.get(owner, 0) > 0


def lock_of(shared: object) -> threading.RLock:
    """The lock of an object that calls share; each forward of a hooked module takes it. Copies have their own."""
    with _registry:
        return _locks.setdefault(shared, threading.RLock())


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has a `ForwardBinding`."""
    return any(isinstance(owner_of(hook), ForwardBinding) for hook in module._forward_pre_hooks.values())


class ForwardBinding(Owner, ABC):
    """Hooks on a module that bind the caller's state for the time of each forward.

    The hooks run outside of what `torch.compile` traces, and are bound methods, so copies and pickles of the module
    have hooks that refer to copies of this object.

    With gradient checkpointing the layers run again in the backward pass, when the forward is over. The state then
    stays bound, and the module locked, until `release`, which the owner of the state calls at its end.

    Args:
        module: The network.
        owner: Whose active state is bound; see `activate`.
        token: See `Owner`.
    """

    def __init__(self, module: nn.Module, owner: object, token: str) -> None:
        super().__init__(token)
        self.module, self.owner = module, owner
        self._bound: Any = None
        self._held: Any = None
        self._entered: dict[int, list[Any]] = {}
        enter, leave = (
            cast(Any, self)._enter,
            cast(Any, self)._leave,
        )  # the types of `torch.compiler.disable` are wrong
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True, always_call=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has no forward running."""
        for name, value in {**state, "_bound": None, "_held": None, "_entered": {}}.items():
            setattr(self, name, value)

    @abstractmethod
    def bind(self, state: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Prepare `state` for a forward with these arguments; returns what `apply` takes."""

    @abstractmethod
    def apply(self, bound: Any) -> None:
        """Make the layers' hooks use what `bound` holds, or do nothing (`None`)."""

    def release(self, state: object) -> None:
        """Unbind a state that gradient checkpointing has kept bound."""
        if self._held is state:
            self._held = None
            self._set(None)
            lock_of(self.module).release()

    @torch.compiler.disable
    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        lock_of(module).acquire()
        self._entered.setdefault(threading.get_ident(), []).append(self._bound)
        state = active_state(self.owner)
        if self._held is not None and state is not self._held and _recomputes(module):
            raise AdapterError(
                "With gradient checkpointing, forwards with different identities cannot share a backward pass."
            )
        self._set(None if state is None else self.bind(state, args, kwargs))

    @torch.compiler.disable
    def _leave(self, module: nn.Module, *_: Any) -> None:
        before = self._entered.get(threading.get_ident())
        if not before:  # another pre-hook failed before `_enter` was called
            return
        previous, state = before.pop(), active_state(self.owner)
        if state is None or not _recomputes(module):
            self._set(previous)
            lock_of(module).release()
        elif self._held is None:
            self._held = state
        else:
            lock_of(module).release()

    def _set(self, bound: Any) -> None:
        if bound is not self._bound:
            self._bound = bound
            self.apply(bound)


def _recomputes(module: nn.Module) -> bool:
    """Whether the backward pass runs the module's layers again."""
    return torch.is_grad_enabled() and bool(getattr(module, "is_gradient_checkpointing", False))
