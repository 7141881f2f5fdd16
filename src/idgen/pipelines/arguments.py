"""The arguments that a pipeline call takes beside diffusers' own."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..adapter import Scale
from ..errors import AdapterError


@dataclass(frozen=True, kw_only=True)
class IdentityArguments:
    """Identity arguments of a pipeline call, after an adapter was loaded with `load_id_adapter`.

    `<id>` in a prompt stands for the person, if the adapter has pseudo-words.

    Args:
        id_image: A photo of the person, or a list: one for each prompt, or, with `id_masks`, of all people in the
            picture.
        id_embeds: An `Identity` instead, or an embedding of the adapter's encoder (tensor, array or list of numbers),
            or a list in the same way, or a dict by adapter name.
        id_masks: Where each person may appear (white), one mask for each.
        id_scale: The scale for this call only; a dict by adapter name where several are loaded.
        control_interval: An `IdentityNet` is computed in one of so many steps, and its residuals are used again in
            the others.

    Raises:
        AdapterError: No adapter is loaded, or people, masks and prompts do not fit together.
        EncoderMismatchError: An identity was made by another encoder than an adapter, or the blocklist, reads.
        BlockedIdentityError: A person is on the blocklist.
        NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
    """

    id_image: Any = None
    id_embeds: Any = None
    id_masks: Any = None
    id_scale: Scale | Mapping[str, Scale] | None = None
    control_interval: int = 1

    @classmethod
    def taken_from(cls, keywords: dict[str, Any], stock: inspect.Signature) -> Self:
        """Take ours out of a call's keywords.

        Raises:
            AdapterError: A keyword looks like one of ours and is none.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in keywords:
            if name.startswith(("id_", "control_int")) and name not in names and name not in stock.parameters:
                near = difflib.get_close_matches(name, names, n=1)
                raise AdapterError(
                    f"'{name}' is no argument of a call; did you mean '{near[0]}'?"
                    if near
                    else f"'{name}' is no argument of a call. Identity arguments: {', '.join(names)}."
                )
        return cls(**{name: keywords.pop(name) for name in names if name in keywords and name not in stock.parameters})

    @property
    def people(self) -> Any:
        """The photos or identities that were given, or `None`.

        Raises:
            AdapterError: Both were given, or an argument that acts on a person without one.
        """
        if self.id_image is not None and self.id_embeds is not None:
            raise AdapterError("Give id_image or id_embeds, not both.")
        people = self.id_image if self.id_embeds is None else self.id_embeds
        if people is None and (self.id_masks is not None or self.id_scale is not None or self.control_interval != 1):
            raise AdapterError(
                "id_masks, id_scale and control_interval need a person: give id_image or id_embeds too."
            )
        return people


def with_identity_arguments(stock: inspect.Signature) -> inspect.Signature:
    """The signature of a pipeline's call with ours as keywords."""
    ours = inspect.signature(IdentityArguments).parameters.values()
    stock_parameters = list(stock.parameters.values())
    rest = [each for each in stock_parameters if each.kind is inspect.Parameter.VAR_KEYWORD]
    named = [each for each in stock_parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return stock.replace(parameters=[*named, *(each for each in ours if each.name not in stock.parameters), *rest])
