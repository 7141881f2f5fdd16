"""`LoadedAdapter`: an adapter in a pipeline, with the face encoder that makes its identities."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch

from ..adapter import IdentityAdapter, IdentityTokens, Scale
from ..adapter.guard import Blocklist
from ..enrollment import enroll
from ..errors import AdapterError, EncoderMismatchError, IdentityError
from ..faces import FaceAnalyzer, ImageEncoder, Photo
from ..identity import Identity
from .arguments import IdEmbeds, IdImage, as_identities, as_photos
from .image_encoders import open_image_encoder
from .supported import Pipeline


@contextmanager
def placed(adapter: IdentityAdapter, pipeline: Pipeline) -> Iterator[None]:
    """Move an adapter to the device and precision of a pipeline, and back after the `with` if this is offloaded."""
    home = adapter.device
    adapter.place(pipeline._execution_device, pipeline.unet.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        if hasattr(pipeline.unet, "_hf_hook"):  # offloading moves components only, and the adapter is none
            torch.nn.Module.to(adapter, device=home)


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter in a pipeline. Pipelines that share an adapter have separate objects with separate scales.

    Attributes:
        adapter: The adapter, attached to the pipeline's UNet.
        analyzer: Finds and embeds faces; loaded at the first photo if not given.
        image_encoder: Encoder of the features that the adapter reads beside the embedding, if it reads any; opened at
            the first photo if not given.
        scale: The scale that `set_id_adapter_scale` of the pipeline has set, or `None` for the adapter's own.
    """

    adapter: IdentityAdapter
    analyzer: FaceAnalyzer | None = None
    image_encoder: ImageEncoder | None = None
    scale: Scale | None = None

    def __post_init__(self) -> None:
        encoder = self.adapter.config["encoder"]
        if self.analyzer is not None and self.analyzer.encoder.name != encoder:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{encoder}', but face_analyzer makes embeddings of "
                f"'{self.analyzer.encoder.name}'."
            )
        if self.image_encoder is not None and self.adapter.to_tokens.has_image_encoder:
            raise AdapterError("The adapter has an image encoder of its own; load it without image_encoder=.")
        if self.image_encoder is not None and self.image_encoder.dim != self.adapter.feature_dim:
            width = self.adapter.feature_dim
            reads = "no image features" if width is None else f"image features of width {width}"
            raise AdapterError(
                f"The adapter reads {reads}, but image_encoder has features of width {self.image_encoder.dim}."
            )
        self._opened: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Networks that were loaded on demand are not pickled."""
        return {**self.__dict__, "_opened": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies the adapter, and shares the analyzer and the image encoder, which have no state."""
        other = copy.copy(self)
        other.adapter = copy.deepcopy(self.adapter, memo)
        return other

    @property
    def face_analyzer(self) -> FaceAnalyzer:
        """The analyzer that finds and embeds faces."""
        if self.analyzer is not None:
            return self.analyzer
        if "analyzer" not in self._opened:
            self._opened["analyzer"] = FaceAnalyzer.for_encoder(self.adapter.config["encoder"])
        return self._opened["analyzer"]

    def enroll(self, photos: Photo | Sequence[Photo], **options: Any) -> Identity:
        """`idgen.enroll` with the encoder that this adapter was trained with."""
        return enroll(photos, self.face_analyzer, image_encoder=self.opened_image_encoder(), **options)

    def opened_image_encoder(self) -> ImageEncoder | None:
        """The encoder of the features that the adapter reads beside the embedding, or `None` if it reads none."""
        if self.adapter.feature_dim is None or self.image_encoder is not None:
            return self.image_encoder
        if self.adapter.to_tokens.has_image_encoder:  # not kept: a copy of this object has another adapter
            return open_image_encoder(self.adapter)
        if "image_encoder" not in self._opened:
            self._opened["image_encoder"] = open_image_encoder(self.adapter)
        return self._opened["image_encoder"]

    @torch.no_grad()
    def encode(
        self,
        *,
        id_image: IdImage | None = None,
        id_embeds: IdEmbeds | None = None,
        num_prompts: int,
        together: bool,
        blocklist: Blocklist | None = None,
    ) -> list[IdentityTokens]:
        """Encode all people to tokens.

        Args:
            id_image: See `IdentityArguments`; either this or `id_embeds`.
            id_embeds: See `IdentityArguments`.
            num_prompts: Number of prompts.
            together: Whether all people are in each image. Otherwise there is one person for all prompts, or one per
                prompt.
            blocklist: Checked for each photo, before photos are averaged.

        Returns:
            The tokens of each person if `together`; otherwise one item with a row per person.

        Raises:
            BlockedIdentityError: A person is on the blocklist.
            AdapterError: The number of people does not fit the number of prompts, or photos have different weights
                for an adapter that reads each photo.
            EncoderMismatchError: An identity was made by another face encoder.
        """
        config = self.adapter.config
        if id_embeds is not None:
            people = as_identities(id_embeds, config["encoder"], config["embedding_dim"], config["normalised"])
        else:
            photos = as_photos(id_image)  # pyright: ignore[reportArgumentType]
            if self.adapter.to_tokens.fuses_text and num_prompts == 1 and not any(map(_is_person, photos)):
                photos = [photos]  # an image shows one person, so these are photos of one
            people = [one if isinstance(one, Identity) else self.enroll(one) for one in photos]  # pyright: ignore
        if not together and len(people) not in (1, num_prompts):
            raise AdapterError(
                f"Got {len(people)} people for {num_prompts} prompt(s). Pass one prompt per person, or id_masks for "
                "several people in one image. Several photos of one person are a list in the list: id_image=[[…, …]]. "
                "Without id_masks, only an adapter that was trained so places several people, under one prompt."
            )
        for person in people:
            self._check_encoder(person)
            if blocklist is not None and not self.adapter.reads_expression:
                blocklist.check(person)
        return [self._encode([one]) for one in people] if together else [self._encode(people)]

    def _encode(self, people: Sequence[Identity]) -> IdentityTokens:
        weight = next(self.adapter.parameters())
        where = {"device": weight.device, "dtype": weight.dtype}
        embeds = [self._embedding(identity) for identity in people]
        if len({each.shape for each in embeds}) > 1:
            raise AdapterError(
                "This adapter reads each photo: all people in one call must have the same number of photos."
            )
        if self.adapter.feature_dim is None:
            return self.adapter.encode(torch.stack(embeds).to(**where))
        features = torch.stack([self._features(identity) for identity in people])
        # the features of no person are zeros, or made by the image encoder
        encoder = None if self.adapter.to_tokens.zero_features else self.opened_image_encoder()
        negative = None if encoder is None else encoder.unconditional()
        return self.adapter.encode(
            torch.stack(embeds).to(**where),
            features.to(**where),
            None if negative is None else negative.to(**where),
        )

    def _check_encoder(self, identity: Identity) -> None:
        if identity.encoder != self.adapter.config["encoder"]:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{self.adapter.config['encoder']}', but {identity} was made by "
                f"'{identity.encoder}'. Enrol the photos again with pipe.encode_identity."
            )

    def _embedding(self, identity: Identity) -> torch.Tensor:
        normalised = self.adapter.config["normalised"]
        if self.adapter.config["pool_photos"]:
            return identity.embedding(normalised=normalised)
        assert identity.weights is not None
        if not torch.allclose(identity.weights, identity.weights[:1]):
            raise AdapterError(
                "This adapter reads each photo and no weights. Enrol the photos without weights, the best one first."
            )
        return identity.by_photo(normalised=normalised)

    def _features(self, identity: Identity) -> torch.Tensor:
        """(tokens, dim), or (photos, tokens, dim) if the adapter has separate tokens for each photo."""
        reads, dim = self.adapter.config["image_encoder"], self.adapter.feature_dim
        if identity.features is None:
            raise IdentityError(
                f"{identity} has no image features, which this adapter requires; enrol it with pipe.encode_identity."
            )
        if (reads and identity.image_encoder not in (None, reads)) or identity.features.shape[-1] != dim:
            raise EncoderMismatchError(
                f"The adapter reads image features of '{reads or 'CLIP'}' of width {dim}, but {identity} has features "
                f"of '{identity.image_encoder}' of width {identity.features.shape[-1]}. Enrol the photos again with "
                "pipe.encode_identity."
            )
        return identity.mean_features() if self.adapter.config["pool_photos"] else identity.features


def _is_person(given: object) -> bool:
    """Whether an item of `id_image` is more than one photo: an identity, or the list of a person's photos."""
    return isinstance(given, Identity | list | tuple)
