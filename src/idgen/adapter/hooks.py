"""Forward hooks: found again on whatever module they have ended up, and bound to the state of the running call.

A quantiser may copy a layer with its hooks, and a copied pipeline has copied hooks, so the handle that torch returns
is not enough to remove a hook. Each of our hooks is a bound method of a `HookOwner`, whose token identifies it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn

from ..errors import AdapterError
from .state import active_state, lock_of

State = TypeVar("State")
Bound = TypeVar("Bound")


class HookOwner:
    """An object whose bound methods are forward hooks.

    Args:
        token: The same for all owners that are removed together. Copies keep it.
    """

    def __init__(self, token: str) -> None:
        self.token = token


def remove_hooks(module: nn.Module, token: str, kind: type[HookOwner] = HookOwner) -> None:
    """Remove the forward hooks and pre-hooks of one module that belong to owners with this token, of this kind."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            owner = owner_of(hook)
            if isinstance(owner, kind) and owner.token == token:
                del hooks[key]
                for flags in (
                    module._forward_hooks_with_kwargs,
                    module._forward_hooks_always_called,
                    module._forward_pre_hooks_with_kwargs,
                ):
                    flags.pop(key, None)


def owner_of(hook: object) -> object | None:
    """The object that a hook is a method of, or `None` for a function."""
    return getattr(hook.func if isinstance(hook, partial) else hook, "__self__", None)


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has `ForwardHooks`."""
    return any(isinstance(owner_of(hook), ForwardHooks) for hook in module._forward_pre_hooks.values())


class ForwardHooks(HookOwner, ABC, Generic[State, Bound]):
    """Hooks on a module that apply the state of the running call during each forward.

    Before a forward they take the module's lock, look up the active state of `owner`, and apply it; afterwards they
    restore what was applied before and release the lock. They run outside of what `torch.compile` traces. Hooks are
    bound methods, so copies and pickles of the module have hooks that refer to copies of this object.

    With gradient checkpointing, the layers run again in the backward pass, after the forward. The state then stays
    applied, and the module locked, until whoever activated the state calls `release`.

    Args:
        module: The network.
        owner: The object whose active state is applied; see `state.active`.
        token: See `HookOwner`.
    """

    def __init__(self, module: nn.Module, owner: object, token: str) -> None:
        super().__init__(token)
        self.module, self.owner = module, owner
        self._bound: Bound | None = None
        self._held: State | None = None
        self._entered: dict[int, list[Bound | None]] = {}
        hooks = cast(Any, self)  # the types of `torch.compiler.disable` are wrong
        module.register_forward_pre_hook(hooks._enter, with_kwargs=True)
        module.register_forward_hook(hooks._leave, with_kwargs=True, always_call=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is not inside a forward."""
        for name, value in {**state, "_bound": None, "_held": None, "_entered": {}}.items():
            setattr(self, name, value)

    @abstractmethod
    def bind(self, state: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
        """Prepare `state` for a forward with these arguments; returns the argument of `apply`."""

    @abstractmethod
    def apply(self, bound: Bound | None) -> None:
        """Make the hooks of the layers use `bound`; `None` makes them do nothing."""

    def release(self, state: State) -> None:
        """Stop applying a state that gradient checkpointing has kept applied."""
        if self._held is state:
            self._held = None
            self._set(None)
            lock_of(self.module).release()

    @torch.compiler.disable
    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        lock_of(module).acquire()
        self._entered.setdefault(threading.get_ident(), []).append(self._bound)
        state = cast(State | None, active_state(self.owner))
        if self._held is not None and state is not self._held and _recomputes(module):
            raise AdapterError(
                "With gradient checkpointing, forwards with different identities cannot share a backward pass."
            )
        self._set(None if state is None else self.bind(state, args, kwargs))

    @torch.compiler.disable
    def _leave(self, module: nn.Module, *_: object) -> None:
        before = self._entered.get(threading.get_ident())
        if not before:  # another pre-hook failed before `_enter` was called
            return
        previous, state = before.pop(), cast(State | None, active_state(self.owner))
        if state is None or not _recomputes(module):
            self._set(previous)
            lock_of(module).release()
        elif self._held is None:
            self._held = state
        else:
            lock_of(module).release()

    def _set(self, bound: Bound | None) -> None:
        if bound is not self._bound:
            self._bound = bound
            self.apply(bound)


def _recomputes(module: nn.Module) -> bool:
    """Whether the backward pass runs the module's layers again."""
    return torch.is_grad_enabled() and bool(getattr(module, "is_gradient_checkpointing", False))
