"""Forward hooks that can be found again on whatever module they have ended up.

A quantiser may copy a layer with its hooks, and a copied pipeline has copied hooks, so the handle that torch returns
is not enough. A hook of ours is a bound method of an `Owner`, and the owner's token tells whose it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn


class Owner:
    """An object whose bound methods are forward hooks.

    Args:
        token: The same for all owners that are removed together. Copies keep it.
    """

    def __init__(self, token: str) -> None:
        self.token = token


def remove_hooks(module: nn.Module, token: str, kind: type[Owner] = Owner) -> None:
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


def owner_of(hook: Any) -> Any:
    """The object that a hook is a method of, if it is one."""
    return getattr(hook.func if isinstance(hook, partial) else hook, "__self__", None)
