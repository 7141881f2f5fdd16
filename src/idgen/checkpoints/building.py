"""Models from a configuration that a stranger wrote: checked first, then made without more memory than its file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import AdapterError, CheckpointError, IdgenError
from ..typed import arguments, hints

Model = TypeVar("Model", bound=nn.Module)

MAX_NUMBER = 1 << 20
"""Far above any width or count in a Stable Diffusion model."""

MAX_ENTRIES, MAX_TEXT = 1000, 1000
MAX_PARAMETERS = 4_000
"""Tensors in a model; the UNet of SDXL has 1,680. It bounds the time that a number of layers may take."""

_LAYER = re.compile(r"\w+(\.\w+)*\.attn2")
_AT_LEAST_ONE = ("cross_attention_dim", "embedding_dim", "num_tokens")


def check_config(kind: type[nn.Module], config: Any, where: str, known_only: bool = False) -> dict[str, Any]:
    """Check the arguments of a model's class.

    Args:
        kind: The class; its annotations say what it takes.
        config: From a file. Names that begin with `_` are diffusers' notes.
        where: The file, for the message.
        known_only: Leave out names that the class does not know and values that are not set, as diffusers does.

    Returns:
        The arguments.

    Raises:
        CheckpointError: Something is missing, of the wrong type, or beyond the limits.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError(f"The configuration in '{where}' is no table but {type(config).__name__}.")
    where = f"The configuration in '{where}'"
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    _check_limits(given, where, "it")
    if known_only:
        known = hints(kind)
        given = {name: value for name, value in given.items() if name in known and value is not None}
    if hasattr(kind, "upgrade_config"):
        given = cast(Any, kind).upgrade_config(given)
    given = arguments(kind, given, where, CheckpointError)
    if isinstance(layers := given.get("layers"), Mapping):  # an adapter's
        _check_adapter(given, layers, where)
    return given


def build(kind: type[Model], config: Any, state: Mapping[str, torch.Tensor], where: str) -> Model:
    """Make a model with these tensors and no others, in their types.

    Args:
        kind: Its class.
        config: Arguments of the class.
        state: Tensors by name.
        where: The file, for the message.

    Raises:
        CheckpointError: The configuration is refused by `check_config`, or the tensors do not fit it.
    """
    given = check_config(kind, config, where)
    with limited(where), torch.device("meta"):
        model = kind(**given)
    load_strictly(model, state, where)
    return model.eval()


@contextmanager
def limited(where: str) -> Iterator[None]:
    """Refuse a model with too many parameters while it is made, and say of any error that the file is to blame.

    Args:
        where: The file, for the message.

    Raises:
        CheckpointError: As described. Errors of this package pass unchanged.
    """
    made, thread = 0, threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > MAX_PARAMETERS:
            raise CheckpointError(f"'{where}' describes a model of more than {MAX_PARAMETERS:,} tensors.")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except CheckpointError:
        raise
    except AdapterError as error:
        raise CheckpointError(f"'{where}' could not be opened: {error}") from error
    except IdgenError:
        raise
    except Exception as error:  # classes of other libraries raise whatever a configuration makes them stumble over
        raise CheckpointError(f"'{where}' could not be opened: {type(error).__name__}: {error}") from error
    finally:
        handle.remove()


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Give a model, which may lie on the meta device, these tensors and no others.

    Raises:
        CheckpointError: Tensors are missing, of another shape, no floating-point numbers, or there are others.
    """
    wanted = model.state_dict()
    mismatched = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    refuse_misfits(where, list(wanted.keys() - state.keys()), list(state.keys() - wanted.keys()), mismatched)
    if wrong := sorted(name for name, tensor in state.items() if not tensor.is_floating_point()):
        raise CheckpointError(f"'{where}' holds no floating-point numbers in {_names(wrong)}.")
    model.load_state_dict(dict(state), assign=True)


def refuse_misfits(where: str, missing: list[str], unexpected: list[str], mismatched: list[str]) -> None:
    """Raise CheckpointError if any list of names holds one."""
    problems = {"lacks": missing, "has besides": unexpected, "has with another shape": mismatched}
    found = [f"{what} {_names(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"'{where}' does not fit the model it is opened as: it {'; '.join(found)}.")


def _check_limits(value: Any, where: str, name: str) -> None:
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MAX_ENTRIES:
            raise CheckpointError(f"{where}: {name} has {len(value)} entries, more than {MAX_ENTRIES}.")
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_limits(key, where, f"a name in {name}")
            _check_limits(inner, where, (str(key) if name == "it" else f"{name}.{key}")[:80])
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        raise CheckpointError(f"{where}: {name} is a text of {len(value)} letters, more than {MAX_TEXT}.")
    elif isinstance(value, int | float) and not 0 <= value <= MAX_NUMBER:  # nor is NaN
        shown = value if abs(value) < 1 << 64 else "larger"
        raise CheckpointError(f"{where}: {name} must be between 0 and {MAX_NUMBER:,}, not {shown}.")


def _check_adapter(given: Mapping[str, Any], layers: Mapping[str, int], where: str) -> None:
    if not layers or min(layers.values()) < 1 or not all(_LAYER.fullmatch(path) for path in layers):
        raise CheckpointError(f"{where}: layers must be paths of cross-attention layers with their widths.")
    for name in _AT_LEAST_ONE:
        if given.get(name, 1) < 1:
            raise CheckpointError(f"{where}: {name} must be at least 1, not {given[name]}.")


def _names(keys: list[str], shown: int = 8) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
