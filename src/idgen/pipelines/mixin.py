"""`IdentityAdapterMixin`: the identity methods of a diffusers pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from torch import nn

from ..adapter import IdentityAdapter, Scale
from ..adapter.guard import blocklist_of, set_blocklist
from ..adapter.orthogonal import preset_of
from ..errors import AdapterError
from ..faces import Choice, Face, FaceAnalyzer, Photo
from ..identity import Identity
from ..provenance.blocklist import IdentityBlocklist
from .activation import apply_blocklist
from .editing import EditingMixin
from .from_pipe import wrap_auto_pipelines
from .image_encoders import ImageEncoderSource, as_image_encoder
from .landmarks import landmark_image
from .loaded import LoadedAdapter, placed
from .supported import check_supported


class IdentityAdapterMixin(EditingMixin):
    """The methods that `import idgen` adds to diffusers' pipelines; `idgen.pipelines` has classes with their types.

    A call of the pipeline takes the arguments of `IdentityArguments` in addition to its own.
    """

    unet: nn.Module
    scheduler: Any

    @property
    def id_adapters(self) -> dict[str, IdentityAdapter]:
        """The loaded adapters by name."""
        return {name: loaded.adapter for name, loaded in self._loaded_adapters.items()}

    @property
    def id_blocklist(self) -> IdentityBlocklist | None:
        """People who are refused when enrolled and in calls: `pipe.id_blocklist = IdentityBlocklist.load(…)`.

        It belongs to the UNet, so it applies to all pipelines that share the UNet, and to adapters loaded later.
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
        image_encoder: ImageEncoderSource | None = None,
        preset: str | None = None,
        lora_follows_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load an adapter and attach it to the UNet. Images without an identity do not change by a bit.

        Args:
            pretrained_model_name_or_path_or_adapter: A folder, a file or a hub id, in this package's format or a
                public one (`"InstantX/InstantID"`), `"tiny"` for the built-in adapter, or an `IdentityAdapter`. An
                adapter of another pipeline with the same UNet (`pipe.id_adapters["default"]`) is shared.
            adapter_name: Name of the adapter; replaces a loaded adapter of the same name.
            face_analyzer: Finds and embeds faces in photos; chosen by the adapter's face encoder if not given.
            image_encoder: Encoder of image features, for adapters that read them: a CLIP model, its folder, file or
                hub id, or an `ImageEncoder`; that of the published adapters if not given.
            preset: Published settings of PuLID's fusion, of `idgen.adapter.PRESETS`: `"fidelity"` for likeness, or
                `"extremely style"` for the prompt; those in the adapter's configuration if not given.
            lora_follows_scale: Whether the LoRA of adapters that have one is multiplied by the identity scale. If
                not, as in the published files, it changes the image even at `id_scale=0`.
            kwargs: `weight_name` and `variant` for public formats; `subfolder`, `revision`, `token`,
                `local_files_only`, … as in diffusers' `from_pretrained`.

        Raises:
            CheckpointError: The adapter cannot be found or opened.
            BaseMismatchError: It was made for another base model.
            EncoderMismatchError: `face_analyzer` makes embeddings of another face encoder.
            AdapterError: The pipeline is not supported, or `image_encoder` or `preset` does not fit the adapter.
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
        fusion = None if preset is None else preset_of(preset)
        encoder = None if image_encoder is None else as_image_encoder(adapter, image_encoder)
        loaded = LoadedAdapter(adapter, face_analyzer, encoder)
        if fusion is not None:
            adapter.set_fusion(*fusion)
        if not adapter.is_attached_to(self.unet):
            adapter.attach(self.unet)
        after = {**self._loaded_adapters, adapter_name: loaded}
        if (before := self._loaded_adapters.get(adapter_name)) is not None:
            _release(before, after)
        self._loaded_adapters = after

    def set_id_adapter_scale(self, scale: Scale, adapter_name: str | None = None) -> None:
        """Set the strength of identity conditioning in this pipeline; inside a callback, from the next step on.

        Args:
            scale: A number, a value per block (`{"down": 0.2, "up_blocks.1": 1.0}`) or a `ScaleSchedule`.
            adapter_name: The adapter; all that read a person if not given.

        Raises:
            AdapterError: No such adapter is loaded, or the scale is not valid.
        """
        changed = dict(self._loaded_or_raise())
        of_people = [name for name, each in changed.items() if not each.adapter.reads_expression]
        for name in [self._checked(adapter_name)] if adapter_name else of_people:
            changed[name].adapter.check_scale(scale)
            changed[name] = replace(changed[name], scale=scale)
        self._loaded_adapters = changed

    def unload_id_adapter(self, adapter_name: str | None = None) -> None:
        """Remove an adapter, or all. After the last one the pipeline is as before, bit for bit.

        Other pipelines that have loaded the same adapter object keep it. A blocklist stays.

        Args:
            adapter_name: The adapter; all adapters if not given.

        Raises:
            AdapterError: No adapter has this name, or a call in another thread is using it.
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
        """Enrol a person once, for any number of calls with `id_embeds`.

        Args:
            photos: One or several photos of the same person.
            face: The face to use if a photo shows several: `"largest"`, an index (largest first) or a box.
            weights: Weight of each photo in the mean; equal if not given.
            name: Name of the person.
            adapter_name: The adapter whose face encoder is used; the first one if not given.

        Raises:
            NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
            BlockedIdentityError: The person is on `id_blocklist`.
        """
        name_of_adapter = self._checked(adapter_name) if adapter_name else next(iter(self._loaded_or_raise()))
        loaded = self._loaded_adapters[name_of_adapter]
        with placed(loaded.adapter, self):  # pyright: ignore[reportArgumentType]
            person = loaded.enroll(photos, face=face, weights=weights, name=name)
        if (blocklist := self.id_blocklist) is not None and not loaded.adapter.reads_expression:
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
            source: A photo, whose faces are all drawn (the reference photo, or another one for its pose); faces; or
                points of shape (faces, 5, 2) in pixels of the generated image.
            size: Width and height of the image. If not given, it has the aspect ratio of the photo and the area of
                the base model's native size.
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
        """Loaded adapters by name, those that read expressions last: where one adapter is to be used, it is the first.

        The dict is never changed, only replaced: copies of the pipeline share it.
        """
        return self.__dict__.get("_loaded_id_adapters", {})

    @_loaded_adapters.setter
    def _loaded_adapters(self, loaded: dict[str, LoadedAdapter]) -> None:
        if loaded:
            order = sorted(loaded, key=lambda name: loaded[name].adapter.reads_expression)
            self.__dict__["_loaded_id_adapters"] = {name: loaded[name] for name in order}
        else:
            self.__dict__.pop("_loaded_id_adapters", None)

    def _loaded_or_raise(self) -> dict[str, LoadedAdapter]:
        if not self._loaded_adapters:
            raise AdapterError("No identity adapter is loaded; call pipe.load_id_adapter(…) first.")
        return self._loaded_adapters

    def _checked(self, adapter_name: str) -> str:
        if adapter_name not in self._loaded_or_raise():
            raise AdapterError(
                f"No adapter is named '{adapter_name}'; loaded adapters: {list(self._loaded_adapters)}."
            )
        return adapter_name


def _release(loaded: LoadedAdapter, kept: Mapping[str, LoadedAdapter]) -> None:
    """Detach an adapter unless it is also loaded under another name.

    Other pipelines that have loaded it attach it again at their next call.
    """
    if all(each.adapter is not loaded.adapter for each in kept.values()):
        loaded.adapter.detach()
