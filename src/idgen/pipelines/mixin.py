"""`IdentityAdapterMixin`: the identity methods of a diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..adapter import IdentityAdapter, Scale
from ..adapter.guard import blocklist_of, set_blocklist
from ..errors import AdapterError
from ..faces import Choice, ClipFeatures, Face, FaceAnalyzer, Photo
from ..identity import Identity
from ..provenance.blocklist import IdentityBlocklist
from .activation import apply_blocklist
from .from_pipe import wrap_auto_pipelines
from .landmarks import landmark_image
from .loaded import LoadedAdapter
from .supported import check_supported


class IdentityAdapterMixin:
    """The methods that `import idgen` gives to diffusers' pipelines; `idgen.pipelines` has classes with their types.

    A call of the pipeline takes the arguments of `IdentityArguments` beside its own.
    """

    unet: nn.Module
    scheduler: Any

    @property
    def id_adapters(self) -> dict[str, IdentityAdapter]:
        """The loaded adapters by name."""
        return {name: loaded.adapter for name, loaded in self._loaded_adapters.items()}

    @property
    def id_blocklist(self) -> IdentityBlocklist | None:
        """People who are refused, when enrolled and when drawn: `pipe.id_blocklist = IdentityBlocklist.load(…)`.

        It holds for the UNet, and so for all pipelines that share it, and for adapters that are loaded later.
        """
        apply_blocklist(self)  # pyright: ignore[reportArgumentType]
        return blocklist_of(self.unet)  # pyright: ignore[reportReturnType]

    @id_blocklist.setter
    def id_blocklist(self, blocklist: IdentityBlocklist | None) -> None:
        self.__dict__["_id_blocklist"] = blocklist
        set_blocklist(self.unet, blocklist)

    def load_id_adapter(
        self,
        pretrained_model_name_or_path_or_adapter: str | os.PathLike[str] | IdentityAdapter,
        *,
        adapter_name: str = "default",
        face_analyzer: FaceAnalyzer | None = None,
        image_encoder: CLIPVisionModelWithProjection | str | os.PathLike[str] | None = None,
        lora_follows_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load an adapter and join it to the UNet. Until a call names a person, pictures do not change by a bit.

        Args:
            pretrained_model_name_or_path_or_adapter: A folder, a file, a hub id, of ours or of the public formats
                (`"InstantX/InstantID"`), or an adapter. One that another pipeline has joined to the same UNet
                (`pipe.id_adapters["default"]` after `from_pipe`) is shared.
            adapter_name: Takes the place of the adapter loaded under this name.
            face_analyzer: Makes identities from photos; found by the adapter's encoder if not given.
            image_encoder: CLIP image encoder, for adapters with the `"plus"` projection; the one that the published
                adapters read if not given.
            lora_follows_scale: Whether the LoRA that some adapters carry gets weaker and stronger with the identity.
                In the published files it does not, so that it changes the picture even at `id_scale=0`.
            kwargs: `weight_name` and `variant` for public formats; `subfolder`, `revision`, `token`,
                `local_files_only`, … as in diffusers' `from_pretrained`.

        Raises:
            CheckpointError: The adapter cannot be found or opened.
            BaseMismatchError: It was made for another base model.
            EncoderMismatchError: `face_analyzer` makes embeddings of another encoder.
        """
        check_supported(self)
        wrap_auto_pipelines()
        source = pretrained_model_name_or_path_or_adapter
        if isinstance(source, IdentityAdapter):
            adapter = source
        else:
            adapter = IdentityAdapter.from_pretrained(source, unet=self.unet, **kwargs)
        if lora_follows_scale:
            adapter.lora_scale = None
        clip = ClipFeatures(image_encoder) if image_encoder is not None else None
        loaded = LoadedAdapter(adapter, face_analyzer, clip)
        if not adapter.is_attached_to(self.unet):
            adapter.attach(self.unet)
        after = {**self._loaded_adapters, adapter_name: loaded}
        if (before := self._loaded_adapters.get(adapter_name)) is not None:
            _release(before, after)
        self._loaded_adapters = after

    def set_id_adapter_scale(self, scale: Scale, adapter_name: str | None = None) -> None:
        """Set how strongly identities act in this pipeline from now on; inside a callback, from the next step on.

        Args:
            scale: A number, a value per block (`{"down": 0.2, "up_blocks.1": 1.0}`) or a `ScaleSchedule`.
            adapter_name: For this adapter only.

        Raises:
            AdapterError: No such adapter is loaded, or this cannot be a scale.
        """
        changed = dict(self._loaded_or_raise())
        for name in [self._checked(adapter_name)] if adapter_name else list(changed):
            changed[name].adapter.check_scale(scale)
            changed[name] = replace(changed[name], scale=scale)
        self._loaded_adapters = changed

    def unload_id_adapter(self, adapter_name: str | None = None) -> None:
        """Remove an adapter, or all. After the last one the pipeline is what it was, bit for bit.

        Other pipelines that have loaded the same adapter object keep it. A blocklist stays.

        Raises:
            AdapterError: No adapter has this name, or another thread is drawing with it.
        """
        for name in [self._checked(adapter_name)] if adapter_name else list(self._loaded_adapters):
            kept = dict(self._loaded_adapters)
            _release(kept.pop(name), kept)
            self._loaded_adapters = kept

    def encode_identity(
        self,
        photos: Photo | Sequence[Photo],
        *,
        face: Choice | None = None,
        weights: Sequence[float] | None = None,
        name: str | None = None,
        adapter_name: str | None = None,
    ) -> Identity:
        """Enrol a person once, to draw them many times with `id_embeds`.

        Args:
            photos: One or several photos of the same person.
            face: Which face is meant where a photo shows several: `"largest"`, an index (largest first) or a box.
            weights: What each photo counts; equal if not given.
            name: What people call this person.
            adapter_name: The adapter whose encoder is used; the first one if not given.

        Raises:
            NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
            BlockedIdentityError: The person is on `id_blocklist`.
        """
        name_of_adapter = self._checked(adapter_name) if adapter_name else next(iter(self._loaded_or_raise()))
        person = self._loaded_adapters[name_of_adapter].enroll(photos, face=face, weights=weights, name=name)
        if (blocklist := self.id_blocklist) is not None:
            blocklist.check(person)
        return person

    def prepare_landmarks(
        self,
        source: Photo | Face | Sequence[Face],
        size: tuple[int, int] | None = None,
        *,
        adapter_name: str | None = None,
    ) -> Image.Image:
        """Draw the five landmarks of faces for an `IdentityNet`: `pipe(…, image=pipe.prepare_landmarks(photo))`.

        Args:
            source: The reference photo, another photo whose pose is wanted, faces, or points of the shape
                (faces, 5, 2) in pixels of the picture. All faces of a photo are drawn.
            size: Width and height of the picture. If not given, a photo keeps its shape at the area of the base
                model's native size.
            adapter_name: The adapter whose face detector is used; the first one if not given.

        Raises:
            NoFaceError, ImageError: The photo shows no face, or cannot be opened.
        """
        loaded = self._loaded_adapters[self._checked(adapter_name or next(iter(self._loaded_or_raise())))]
        config: Any = self.unet.config
        factor = self.vae_scale_factor  # pyright: ignore[reportAttributeAccessIssue]
        step = factor * 2 ** (len(config["block_out_channels"]) - 1)

        def find_faces(photo: Photo) -> list[Face]:
            return loaded.face_analyzer.analyze(photo)

        return landmark_image(source, size, find_faces, config["sample_size"] * factor, step)

    @property
    def _loaded_adapters(self) -> dict[str, LoadedAdapter]:
        """Replaced and never changed: a shallow copy of the pipeline has the same one."""
        return self.__dict__.get("_loaded_id_adapters", {})

    @_loaded_adapters.setter
    def _loaded_adapters(self, loaded: dict[str, LoadedAdapter]) -> None:
        if loaded:
            self.__dict__["_loaded_id_adapters"] = dict(loaded)
        else:
            self.__dict__.pop("_loaded_id_adapters", None)

    def _loaded_or_raise(self) -> dict[str, LoadedAdapter]:
        if not self._loaded_adapters:
            raise AdapterError("No identity adapter is loaded: pipe.load_id_adapter(…) first.")
        return self._loaded_adapters

    def _checked(self, adapter_name: str) -> str:
        if adapter_name not in self._loaded_or_raise():
            raise AdapterError(f"No adapter is called '{adapter_name}'; loaded: {list(self._loaded_adapters)}.")
        return adapter_name


def _release(loaded: LoadedAdapter, kept: Mapping[str, LoadedAdapter]) -> None:
    """Detach an adapter unless it is kept under another name.

    Other pipelines that have loaded it attach it again at their next call.
    """
    if all(each.adapter is not loaded.adapter for each in kept.values()):
        loaded.adapter.detach()
