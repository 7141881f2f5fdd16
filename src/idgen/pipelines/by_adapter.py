"""Which adapters a call uses, with which people and scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapter import Scale
from ..errors import AdapterError
from .arguments import IdEmbeds, IdImage
from .loaded import LoadedAdapter


def by_adapter(
    people: IdImage | IdEmbeds | Mapping[str, IdImage | IdEmbeds], loaded: Mapping[str, LoadedAdapter]
) -> dict[str, IdImage | IdEmbeds]:
    """Adapter → its people: those of the call for all adapters that read people, or by name."""
    of_people = [name for name, each in loaded.items() if not each.adapter.reads_expression]
    if not of_people:
        raise AdapterError("No identity adapter is loaded; call pipe.load_id_adapter(…) first.")
    if not isinstance(people, Mapping):
        return dict.fromkeys(of_people, people)
    if not people:
        raise AdapterError(f"The dict of identities is empty; loaded adapters: {list(loaded)}.")
    for name in people:
        if name not in loaded:
            raise AdapterError(f"No adapter is named '{name}'; loaded adapters: {list(loaded)}.")
        if name not in of_people:
            raise AdapterError(f"The adapter '{name}' reads expressions: pass the photo as expression_image.")
    return dict(people)


def expression_adapter(loaded: Mapping[str, LoadedAdapter]) -> str:
    """The name of the adapter that reads expressions."""
    names = [name for name, each in loaded.items() if each.adapter.reads_expression]
    if len(names) != 1:
        raise AdapterError(
            f"expression_image needs one adapter that reads expressions; of the loaded ones, {list(loaded)}, "
            f'{names or "none"} read them. Load it with pipe.load_id_adapter(…, adapter_name="expression").'
        )
    return names[0]


def scale_of_adapter(
    id_scale: Scale | Mapping[str, Scale] | None, name: str, loaded: Mapping[str, LoadedAdapter]
) -> Scale | None:
    """The `id_scale` of one adapter, or `None` if it was not given."""
    scale: Any = id_scale
    if isinstance(id_scale, Mapping) and (known := set(id_scale) & set(loaded)):
        if unknown := set(id_scale) - known:
            raise AdapterError(
                f"id_scale names adapters ({sorted(known)}) and others ({sorted(unknown)}): pass either a scale per "
                f"adapter (loaded: {list(loaded)}), or a scale per block."
            )
        if others := [each for each in known if loaded[each].adapter.reads_expression]:
            raise AdapterError(f"The adapter {others} reads expressions: pass its scale as expression_scale.")
        return id_scale.get(name)
    return scale


def reads_placeholder(loaded: LoadedAdapter) -> bool:
    """Whether an adapter changes a prompt where it contains the placeholder."""
    return bool(loaded.adapter.config["num_words"]) or loaded.adapter.to_tokens.fuses_text
