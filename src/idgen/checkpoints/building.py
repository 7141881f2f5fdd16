"""Models from untrusted configurations: checked first, then built without more memory than the file needs."""

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
"""Limit of widths and counts, far above those of any Stable Diffusion model."""

MAX_ENTRIES, MAX_TEXT = 1000, 1000
MAX_PARAMETERS = 4_000
"""Limit of tensors in a model, which bounds the time to build it. The UNet of SDXL has 1,680."""

_LAYER = re.compile(r"\w+(\.\w+)*\.attn2")
_AT_LEAST_ONE = ("cross_attention_dim", "embedding_dim", "num_tokens")


def check_config(kind: type[nn.Module], config: Any, where: str, known_only: bool = False) -> dict[str, Any]:
    """Check the arguments of a model's class.

    Args:
        kind: The class. Values are checked against its annotations; its `upgrade_config`, if it has one, converts
            the configurations of earlier versions.
        config: A configuration from a file. Names that begin with `_` are ignored.
        where: The file, for the error message.
        known_only: Ignore names that the class does not know, and values that are not set, as diffusers does.

    Returns:
        The arguments.

    Raises:
        CheckpointError: A value is missing, of the wrong type, or beyond the limits.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError(f"The configuration in '{where}' must be a table, got {type(config).__name__}.")
    where = f"The configuration in '{where}'"
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    _check_limits(given, where, "")
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
    """Build a model with exactly these tensors, in their types.

    Args:
        kind: The class of the model.
        config: Arguments of the class.
        state: Tensors by name.
        where: The file, for the error message.

    Raises:
        CheckpointError: `check_config` refuses the configuration, or the tensors do not fit it.
    """
    given = check_config(kind, config, where)
    with limited(where), torch.device("meta"):
        model = kind(**given)
    load_strictly(model, state, where)
    return model.eval()


@contextmanager
def limited(where: str) -> Iterator[None]:
    """Refuse a model with too many tensors while it is built, and name the file in any error.

    Args:
        where: The file, for the error message.

    Raises:
        CheckpointError: The model is too large, or its class raises an error.
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
    """Load exactly these tensors into a model, which may be on the meta device.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape, or not of floating-point type.
    """
    wanted = model.state_dict()
    mismatched = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    refuse_misfits(where, list(wanted.keys() - state.keys()), list(state.keys() - wanted.keys()), mismatched)
    if wrong := sorted(name for name, tensor in state.items() if not tensor.is_floating_point()):
        raise CheckpointError(f"'{where}' has tensors that are not of floating-point type: {_names(wrong)}.")
    model.load_state_dict(dict(state), assign=True)


def refuse_misfits(where: str, missing: list[str], unexpected: list[str], mismatched: list[str]) -> None:
    """Raise CheckpointError if any of the lists of names is not empty."""
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    found = [f"{what}: {_names(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(f"The tensors in '{where}' do not fit the model; {'; '.join(found)}.")


def _check_limits(value: Any, where: str, name: str) -> None:
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MAX_ENTRIES:
            raise CheckpointError(f"{where}: {name} must have at most {MAX_ENTRIES} entries, got {len(value)}.")
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_limits(key, where, f"a name in {name or 'it'}")
            _check_limits(inner, where, f"{name}.{key}".removeprefix(".")[:80])
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        raise CheckpointError(f"{where}: {name} must have at most {MAX_TEXT} characters, got {len(value)}.")
    elif isinstance(value, int | float) and not 0 <= value <= MAX_NUMBER:  # nor is NaN
        shown = value if abs(value) < 1 << 64 else "a larger number"
        raise CheckpointError(f"{where}: {name} must be between 0 and {MAX_NUMBER:,}, got {shown}.")


def _check_adapter(given: Mapping[str, Any], layers: Mapping[str, int], where: str) -> None:
    if not layers or min(layers.values()) < 1 or not all(_LAYER.fullmatch(path) for path in layers):
        raise CheckpointError(f"{where}: layers must map paths of cross-attention layers to their widths.")
    for name in _AT_LEAST_ONE:
        if given.get(name, 1) < 1:
            raise CheckpointError(f"{where}: {name} must be >= 1, got {given[name]}.")


def _names(keys: list[str], shown: int = 8) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
