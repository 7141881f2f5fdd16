"""`LoadedAdapter`: an adapter in a pipeline, with what turns photos into its identities."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from ..adapter import Blocklist, IdentityAdapter, Person, Scale
from ..enroll import enroll
from ..errors import AdapterError, EncoderMismatchError, IdentityError
from ..faces import ClipFeatures, FaceAnalyzer, Photo
from ..identity import Identity
from .people import identities, photos

CLIP_H = ("h94/IP-Adapter", "models/image_encoder", 1280)
"""Hub id, folder and width of the image encoder that the published FaceID-Plus adapters read."""


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter in a pipeline. Pipelines that share it have objects of their own, so that their scales are separate.

    Attributes:
        adapter: Attached to the pipeline's UNet.
        analyzer: Opened when the first photo comes, if it was not given.
        clip: Image encoder of a `"plus"` adapter.
        scale: What `set_id_adapter_scale` of the pipeline has set; the adapter's own if nothing.
    """

    adapter: IdentityAdapter
    analyzer: FaceAnalyzer | None = None
    clip: ClipFeatures | None = None
    scale: Scale | None = None

    def __post_init__(self) -> None:
        encoder = self.adapter.config["encoder"]
        if self.analyzer is not None and self.analyzer.encoder.name != encoder:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{encoder}', but the face analyzer makes those of "
                f"'{self.analyzer.encoder.name}'."
            )
        if self.clip is not None and self.clip.dim != self.adapter.config["feature_dim"]:
            raise AdapterError(
                f"The adapter reads CLIP features of width {self.adapter.config['feature_dim']}; those of the image "
                f"encoder have {self.clip.dim}."
            )
        self._opened: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Networks that were opened on demand are opened again by an unpickled pipeline."""
        return {**self.__dict__, "_opened": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of the adapter, with the same analyzer and image encoder, which have no state."""
        other = copy.copy(self)
        other.adapter = copy.deepcopy(self.adapter, memo)
        return other

    @property
    def face_analyzer(self) -> FaceAnalyzer:
        """What finds faces and embeds them."""
        if self.analyzer is not None:
            return self.analyzer
        if "analyzer" not in self._opened:
            self._opened["analyzer"] = FaceAnalyzer.for_encoder(self.adapter.config["encoder"])
        return self._opened["analyzer"]

    def enroll(self, photos: Photo | Sequence[Photo], **options: Any) -> Identity:
        """`idgen.enroll` with the encoder that this adapter was trained with."""
        return enroll(photos, self.face_analyzer, clip=self._needed_clip(), **options)

    @torch.no_grad()
    def persons(
        self,
        *,
        id_image: Any = None,
        id_embeds: Any = None,
        prompts: int,
        apart: bool,
        blocklist: Blocklist | None = None,
    ) -> list[Person]:
        """Project all people to tokens.

        Args:
            id_image: See `IdentityArguments`; either this or `id_embeds`.
            id_embeds: The same.
            prompts: How many prompts there are.
            apart: Whether all people are in each picture, each in a region of their own.
            blocklist: Checked by photo, before photos are averaged.

        Raises:
            BlockedIdentityError: A person is on the blocklist.
            AdapterError: The number of people does not fit the number of prompts.
            EncoderMismatchError: An identity was made by another encoder.
        """
        config = self.adapter.config
        if id_embeds is not None:
            people = identities(id_embeds, config["encoder"], config["embedding_dim"], config["normalised"])
        else:
            people = [one if isinstance(one, Identity) else self.enroll(one) for one in photos(id_image)]
        if not apart and len(people) not in (1, prompts):
            raise AdapterError(
                f"{len(people)} people for {prompts} prompt(s). Give as many prompts, or id_masks to draw them in "
                "one picture; several photos of one person go through encode_identity first."
            )
        for person in people:
            self._check_encoder(person)
            if blocklist is not None:
                blocklist.check(person)
        return [self._person([one]) for one in people] if apart else [self._person(people)]

    def _person(self, people: Sequence[Identity]) -> Person:
        where = {"device": self.adapter.device, "dtype": self.adapter.dtype}
        embeds = [self._embedding(identity) for identity in people]
        if len({each.shape for each in embeds}) > 1:
            raise AdapterError("This adapter gives each photo tokens of its own: all people need as many photos.")
        clip = self._needed_clip()
        if clip is None:
            return self.adapter.person(torch.stack(embeds).to(**where))
        features = torch.stack([_mean_features(identity) for identity in people])
        return self.adapter.person(torch.stack(embeds).to(**where), features.to(**where), clip.nobody().to(**where))

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

    def _needed_clip(self) -> ClipFeatures | None:
        if self.adapter.config["projection"] != "plus":
            return None
        if self.clip is not None:
            return self.clip
        if "clip" not in self._opened:
            repo, subfolder, dim = CLIP_H
            if self.adapter.config["feature_dim"] != dim:
                raise AdapterError(
                    "This adapter reads CLIP features: load_id_adapter(…, image_encoder=<folder or hub id>)."
                )
            self._opened["clip"] = ClipFeatures(repo, subfolder)
        return self._opened["clip"]


def _mean_features(identity: Identity) -> torch.Tensor:
    if identity.features is None:
        raise IdentityError(
            f"{identity} holds no CLIP features, which this adapter reads; enrol it with this pipeline."
        )
    assert identity.weights is not None
    return torch.einsum("p,pnc->nc", identity.weights, identity.features)
