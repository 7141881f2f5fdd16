"""`IdentityAdapterMixin`: what a pipeline can do once an identity adapter is loaded."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.utils.torch_utils import unwrap_module
from PIL import Image
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..adapter import IdentityAdapter, IdentityNet, Person, Scale
from ..errors import AdapterError
from ..faces import Choice, ClipFeatures, Face, FaceAnalyzer, Photo
from ..identity import Identity
from ..provenance.blocklist import IdentityBlocklist
from .conditioning import Batch, LoadedAdapter, region_masks
from .landmarks import landmark_image
from .prompts import PLACEHOLDER, names_somebody, persons_in_prompts


class IdentityAdapterMixin:
    """Put it before a diffusers pipeline class: `class P(IdentityAdapterMixin, StableDiffusionPipeline): ...`.

    Nothing of the pipeline is copied: a call turns photos into identity tokens, lets the adapters act, and calls the
    pipeline.
    """

    unet: nn.Module
    scheduler: Any
    id_blocklist: IdentityBlocklist | None = None
    """Whoever is on it is refused, when enrolled and when drawn: `pipe.id_blocklist = IdentityBlocklist.load(…)`."""

    _stock_class: ClassVar[type | None] = None
    """What the instance was before `load_id_adapter` and is again once the last adapter is unloaded."""

    @property
    def id_adapters(self) -> dict[str, IdentityAdapter]:
        """The loaded adapters by name."""
        return {name: loaded.adapter for name, loaded in self._loaded_adapters.items()}

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
        source = pretrained_model_name_or_path_or_adapter
        if isinstance(source, IdentityAdapter):
            adapter = source
        else:
            adapter = IdentityAdapter.from_pretrained(source, unet=self.unet, **kwargs)
        if lora_follows_scale:
            adapter.lora_scale = None
        clip = ClipFeatures(image_encoder) if image_encoder is not None else None
        loaded = LoadedAdapter(adapter, face_analyzer, clip, shared=adapter.is_attached_to(self.unet))
        before = self._loaded_adapters.get(adapter_name)
        if before is not None and before.adapter is adapter:
            loaded.shared = before.shared
        elif not loaded.shared:
            adapter.attach(self.unet)
        if before is not None and before.adapter is not adapter:
            self._release(before)
        self._loaded_adapters[adapter_name] = loaded

    def set_id_adapter_scale(self, scale: Scale, adapter_name: str | None = None) -> None:
        """Say how strongly identities act from now on.

        Args:
            scale: A number, a value per block (`{"down": 0.2, "up_blocks.1": 1.0}`) or a `ScaleSchedule`.
            adapter_name: For this adapter only.

        Raises:
            AdapterError: No such adapter is loaded, or this cannot be a scale.
        """
        names = [self._checked(adapter_name)] if adapter_name else list(self._loaded_or_raise())
        for name in names:
            self._loaded_adapters[name].adapter.scale = scale

    def unload_id_adapter(self, adapter_name: str | None = None) -> None:
        """Take an adapter, or all, off again. After the last one the pipeline is what it was, bit for bit.

        Raises:
            AdapterError: No adapter has this name.
        """
        for name in [self._checked(adapter_name)] if adapter_name else list(self._loaded_adapters):
            self._release(self._loaded_adapters.pop(name))
        if not self._loaded_adapters:
            del self.__dict__["_loaded_id_adapters"]
            self.__dict__.pop("id_blocklist", None)
            if self._stock_class is not None:
                self.__class__ = self._stock_class

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
        if self.id_blocklist is not None:
            self.id_blocklist.check(person)
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

    def __call__(
        self,
        *args: Any,
        id_image: Any = None,
        id_embeds: Any = None,
        id_masks: Any = None,
        id_scale: Scale | Mapping[str, Scale] | None = None,
        control_interval: int = 1,
        **kwargs: Any,
    ) -> Any:
        """Call the pipeline, and pass its own arguments on. `<id>` in a prompt is the person, if an adapter has words.

        Args:
            args: The pipeline's own.
            id_image: A photo of the person, or a list: one for each prompt, or, with `id_masks`, of everybody in the
                picture.
            id_embeds: An `Identity` instead, or a list in the same way, or a tensor (people, dim) in the adapter's own
                convention; or a dict by adapter name.
            id_masks: Where each person may appear (white), one mask for each.
            id_scale: The scale for this call only; a dict by adapter name where several are loaded.
            control_interval: An `IdentityNet` is computed in every so many steps, and its residuals are used again
                between.
            kwargs: The pipeline's own.

        Raises:
            AdapterError: No adapter is loaded, or people, masks and prompts do not fit together.
            EncoderMismatchError: An identity was made by another encoder than an adapter, or `id_blocklist`, reads.
            BlockedIdentityError: Somebody is on `id_blocklist`.
            NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
        """
        call = super().__call__  # pyright: ignore[reportAttributeAccessIssue]
        bound = inspect.signature(call).bind(*args, **kwargs)
        people = id_image if id_embeds is None else id_embeds
        if people is None:
            if id_masks is not None or id_scale is not None:
                raise AdapterError("id_masks and id_scale act on a person: give id_image or id_embeds too.")
            if names_somebody(bound.arguments) and any(a.config["num_words"] for a in self.id_adapters.values()):
                raise AdapterError(f"The prompt names a person by {PLACEHOLDER}: give id_image or id_embeds too.")
            return call(*args, **kwargs)
        if id_image is not None and id_embeds is not None:
            raise AdapterError("Give id_image or id_embeds, not both.")
        by_name = people if isinstance(people, Mapping) else dict.fromkeys(self._loaded_or_raise(), people)
        batch = Batch.of_call(bound.arguments)
        with ExitStack() as stack:
            drawn = {
                name: self._draw(stack, self._checked(name), who, batch, id_masks, id_scale)
                for name, who in by_name.items()
            }
            self._read(stack, drawn, batch, id_masks, control_interval)
            if names_somebody(bound.arguments):
                named = [p for p in drawn.values() if any(words is not None for words in p[0].words)]
                first = (named or list(drawn.values()))[0]
                bound.arguments |= stack.enter_context(persons_in_prompts(self, first, bound.arguments))
            return call(*bound.args, **bound.kwargs)

    def _draw(
        self, stack: ExitStack, name: str, people: Any, batch: Batch, id_masks: Any, id_scale: Any
    ) -> list[Person]:
        """Let an adapter act until the stack closes."""
        loaded = self._loaded_adapters[name]
        adapter = loaded.adapter
        if not adapter.is_attached_to(self.unet):
            raise AdapterError(f"The adapter '{name}' was taken off by the pipeline that loaded it; load it again.")
        if hasattr(self.unet, "_hf_hook"):  # offloading: the adapter is no component, so it makes the way by itself
            stack.callback(lambda home=adapter.device: adapter.to(home))
        where = {"device": self._execution_device, "dtype": self.unet.dtype}  # pyright: ignore
        nn.Module.to(adapter, **where)  # ModelMixin's own warns of layers kept in float32, even if there are none
        persons = loaded.persons(people, batch.prompts, apart=id_masks is not None, blocklist=self.id_blocklist)
        if id_scale is not None:
            stack.callback(setattr, adapter, "scale", adapter.scale)
            named = isinstance(id_scale, Mapping) and set(id_scale) <= set(self._loaded_adapters)
            adapter.scale = id_scale.get(name, adapter.scale) if named else id_scale  # pyright: ignore
        drawing = adapter.drawing(
            persons,
            batch.pictures,
            masks=None if id_masks is None else region_masks(id_masks, len(persons)),
            perturbed=batch.perturbed,
            num_train_timesteps=self.scheduler.config.num_train_timesteps,
        )
        stack.enter_context(drawing)
        return persons

    def _read(
        self, stack: ExitStack, drawn: Mapping[str, list[Person]], batch: Batch, id_masks: Any, interval: int
    ) -> None:
        """Let the pipeline's IdentityNets read the persons of the first adapter until the stack closes."""
        controlnet = getattr(self, "controlnet", None)
        nets = controlnet.nets if isinstance(controlnet, MultiControlNetModel) else [controlnet]
        nets = [net for net in map(unwrap_module, nets) if isinstance(net, IdentityNet)]
        if interval != 1 and not nets:
            raise AdapterError("control_interval is for an IdentityNet, and this pipeline has none.")
        persons = next(iter(drawn.values()))
        masks = None if id_masks is None else region_masks(id_masks, len(persons))
        for net in nets:
            reading = net.reading(persons, batch.pictures, masks=masks, perturbed=batch.perturbed, interval=interval)
            stack.enter_context(reading)

    @property
    def _loaded_adapters(self) -> dict[str, LoadedAdapter]:
        return self.__dict__.setdefault("_loaded_id_adapters", {})

    def _loaded_or_raise(self) -> dict[str, LoadedAdapter]:
        if not self._loaded_adapters:
            raise AdapterError("No identity adapter is loaded: pipe.load_id_adapter(…) first.")
        return self._loaded_adapters

    def _checked(self, adapter_name: str) -> str:
        if adapter_name not in self._loaded_or_raise():
            raise AdapterError(f"No adapter is called '{adapter_name}'; loaded: {list(self._loaded_adapters)}.")
        return adapter_name

    def _release(self, loaded: LoadedAdapter) -> None:
        if not loaded.shared and loaded.adapter.is_attached_to(self.unet):
            loaded.adapter.detach()
