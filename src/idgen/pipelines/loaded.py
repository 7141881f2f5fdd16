"""`LoadedAdapter`: an adapter in a pipeline, with the face encoder that makes its identities."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from ..adapter import IdentityAdapter, IdentityTokens, Scale
from ..adapter.guard import Blocklist
from ..enrollment import enroll
from ..errors import AdapterError, EncoderMismatchError, IdentityError
from ..faces import ClipFeatures, FaceAnalyzer, Photo
from ..identity import Identity
from .arguments import IdEmbeds, IdImage, as_identities, as_photos

CLIP_H = ("h94/IP-Adapter", "models/image_encoder", 1280)
"""Hub id, folder and width of the image encoder of the published FaceID-Plus adapters."""


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter in a pipeline. Pipelines that share an adapter have separate objects with separate scales.

    Attributes:
        adapter: The adapter, attached to the pipeline's UNet.
        analyzer: Finds and embeds faces; loaded at the first photo if not given.
        clip: Image encoder, for an adapter that reads CLIP features; loaded at the first photo if not given.
        scale: The scale that `set_id_adapter_scale` of the pipeline has set, or `None` for the adapter's own.
    """

    adapter: IdentityAdapter
    analyzer: FaceAnalyzer | None = None
    clip: ClipFeatures | None = None
    scale: Scale | None = None

    def __post_init__(self) -> None:
        encoder = self.adapter.config["encoder"]
        if self.analyzer is not None and self.analyzer.encoder.name != encoder:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{encoder}', but face_analyzer makes embeddings of "
                f"'{self.analyzer.encoder.name}'."
            )
        if self.clip is not None and self.clip.dim != self.adapter.feature_dim:
            width = self.adapter.feature_dim
            reads = "no CLIP features" if width is None else f"CLIP features of width {width}"
            raise AdapterError(f"The adapter reads {reads}, but image_encoder has features of width {self.clip.dim}.")
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
        return enroll(photos, self.face_analyzer, clip=self._clip_features(), **options)

    @torch.no_grad()
    def encode(
        self,
        *,
        id_image: IdImage | None = None,
        id_embeds: IdEmbeds | None = None,
        num_prompts: int,
        regional: bool,
        blocklist: Blocklist | None = None,
    ) -> list[IdentityTokens]:
        """Encode all people to tokens.

        Args:
            id_image: See `IdentityArguments`; either this or `id_embeds`.
            id_embeds: See `IdentityArguments`.
            num_prompts: Number of prompts.
            regional: Whether all people are in each image, each in their own region. Otherwise there is one person
                for all prompts, or one per prompt.
            blocklist: Checked for each photo, before photos are averaged.

        Returns:
            The tokens of each person if `regional`; otherwise one item with a row per person.

        Raises:
            BlockedIdentityError: A person is on the blocklist.
            AdapterError: The number of people does not fit the number of prompts.
            EncoderMismatchError: An identity was made by another face encoder.
        """
        config = self.adapter.config
        if id_embeds is not None:
            people = as_identities(id_embeds, config["encoder"], config["embedding_dim"], config["normalised"])
        else:
            people = [one if isinstance(one, Identity) else self.enroll(one) for one in as_photos(id_image)]  # pyright: ignore
        if not regional and len(people) not in (1, num_prompts):
            raise AdapterError(
                f"Got {len(people)} people for {num_prompts} prompt(s). Pass one prompt per person, or id_masks for "
                "several people in one image. Combine several photos of one person with encode_identity."
            )
        for person in people:
            self._check_encoder(person)
            if blocklist is not None:
                blocklist.check(person)
        return [self._encode([one]) for one in people] if regional else [self._encode(people)]

    def _encode(self, people: Sequence[Identity]) -> IdentityTokens:
        where = {"device": self.adapter.device, "dtype": self.adapter.dtype}
        embeds = [self._embedding(identity) for identity in people]
        if len({each.shape for each in embeds}) > 1:
            raise AdapterError(
                "This adapter has separate tokens for each photo: all people must have the same number of photos."
            )
        clip = self._clip_features()
        if clip is None:
            return self.adapter.encode(torch.stack(embeds).to(**where))
        features = torch.stack([_mean_features(identity) for identity in people])
        return self.adapter.encode(
            torch.stack(embeds).to(**where), features.to(**where), clip.unconditional().to(**where)
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
        return identity.by_photo(normalised=normalised)

    def _clip_features(self) -> ClipFeatures | None:
        if self.adapter.feature_dim is None:
            return None
        if self.clip is not None:
            return self.clip
        if "clip" not in self._opened:
            repo, subfolder, dim = CLIP_H
            if self.adapter.feature_dim != dim:
                raise AdapterError(
                    "This adapter reads CLIP features: pass load_id_adapter(…, image_encoder=<folder or hub id>)."
                )
            self._opened["clip"] = ClipFeatures(repo, subfolder)
        return self._opened["clip"]


def _mean_features(identity: Identity) -> torch.Tensor:
    if identity.features is None:
        raise IdentityError(
            f"{identity} has no CLIP features, which this adapter requires; enrol it with pipe.encode_identity."
        )
    assert identity.weights is not None
    return torch.einsum("p,pnc->nc", identity.weights, identity.features)
