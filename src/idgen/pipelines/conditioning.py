"""What a call was given (photos or identities, masks) → the persons that an adapter draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from ..adapter import IdentityAdapter, Person
from ..enroll import enroll
from ..errors import AdapterError, EncoderMismatchError, IdentityError
from ..faces import ClipFeatures, FaceAnalyzer, Photo, load_photo
from ..identity import Identity
from ..provenance.blocklist import IdentityBlocklist

People: TypeAlias = "Identity | Photo | torch.Tensor | Sequence[Identity | Photo]"

CLIP_H = ("h94/IP-Adapter", "models/image_encoder", 1280)
"""Hub id, folder and width of the image encoder that the published FaceID-Plus adapters read."""


@dataclass(frozen=True)
class Batch:
    """How many pictures a pipeline call draws.

    Attributes:
        prompts: How many prompts it was given.
        pictures: Prompts times pictures for each.
        perturbed: Whether perturbed-attention guidance is on, which adds a third part to the UNet's batch.
    """

    prompts: int
    pictures: int
    perturbed: bool

    @classmethod
    def of_call(cls, arguments: Mapping[str, Any]) -> Batch:
        """Read it off the arguments of a diffusers pipeline's `__call__`."""
        prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
        prompts = len(prompt) if isinstance(prompt, list) else 1 if embeds is None else len(embeds)
        pictures = prompts * (arguments.get("num_images_per_prompt") or 1)
        return cls(prompts, pictures, perturbed=arguments.get("pag_scale", 0) > 0)


@dataclass
class LoadedAdapter:
    """An adapter in a pipeline, with what turns photos into its identities.

    Attributes:
        adapter: Attached to the pipeline's UNet.
        analyzer: Opened when the first photo comes, if it was not given.
        clip: Image encoder of a `"plus"` adapter.
        shared: Whether another pipeline attached the adapter, which then is the one to detach it.
    """

    adapter: IdentityAdapter
    analyzer: FaceAnalyzer | None = None
    clip: ClipFeatures | None = None
    shared: bool = False

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

    def enroll(self, photos: Photo | Sequence[Photo], **options: Any) -> Identity:
        """`idgen.enroll` with the encoder that this adapter was trained with."""
        return enroll(photos, self.face_analyzer, clip=self._needed_clip(), **options)

    @property
    def face_analyzer(self) -> FaceAnalyzer:
        """What finds faces and embeds them."""
        if self.analyzer is None:
            self.analyzer = FaceAnalyzer.for_encoder(self.adapter.config["encoder"])
        return self.analyzer

    @torch.no_grad()
    def persons(
        self, people: People, prompts: int, apart: bool, blocklist: IdentityBlocklist | None = None
    ) -> list[Person]:
        """Project everybody to tokens.

        Args:
            people: One person or photo, or several: as many as there are prompts, or all in one picture.
            prompts: How many prompts there are.
            apart: Whether all of them are in each picture, everybody in a region of their own.
            blocklist: Whom to refuse.

        Raises:
            BlockedIdentityError: Somebody is on the blocklist.
            AdapterError: The number of people does not fit the number of prompts.
            EncoderMismatchError: An identity was made by another encoder.
        """
        everybody = _as_list(people)
        if not apart and len(everybody) not in (1, prompts):
            raise AdapterError(
                f"{len(everybody)} people for {prompts} prompt(s). Give as many prompts, or id_masks to draw them in "
                "one picture; several photos of one person go through encode_identity first."
            )
        if not all(isinstance(one, torch.Tensor) and one.ndim == 1 for one in everybody):
            everybody = [self._identity(one) for one in everybody]
        if blocklist is not None:
            for one in everybody:
                blocklist.check(self._named(one))
        return [self._person([one]) for one in everybody] if apart else [self._person(everybody)]

    def _person(self, people: Sequence[Identity] | Sequence[torch.Tensor]) -> Person:
        where = {"device": self.adapter.device, "dtype": self.adapter.dtype}
        identities = [one for one in people if isinstance(one, Identity)]
        if not identities:
            if self.adapter.config["projection"] == "plus":
                raise AdapterError(
                    "This adapter reads CLIP features beside embeddings: give an Identity, not a tensor."
                )
            return self.adapter.person(torch.stack(people).to(**where))  # pyright: ignore[reportArgumentType]
        embeds = [self._embedding(identity) for identity in identities]
        if len({each.shape for each in embeds}) > 1:
            raise AdapterError("This adapter gives each photo tokens of its own: all people need as many photos.")
        clip = self._needed_clip()
        if clip is None:
            return self.adapter.person(torch.stack(embeds).to(**where))
        features = torch.stack([_mean_features(identity) for identity in identities])
        return self.adapter.person(torch.stack(embeds).to(**where), features.to(**where), clip.nobody().to(**where))

    def _named(self, person: Identity | torch.Tensor) -> Identity:
        """A tensor is in the space of the adapter's encoder."""
        if isinstance(person, Identity):
            return person
        return Identity(embeddings=person[None], encoder=self.adapter.config["encoder"])

    def _identity(self, person: Identity | Photo) -> Identity:
        identity = person if isinstance(person, Identity) else self.enroll(person)
        if identity.encoder != self.adapter.config["encoder"]:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{self.adapter.config['encoder']}', but {identity} was made by "
                f"'{identity.encoder}'. Enrol the photos again with pipe.encode_identity."
            )
        return identity

    def _embedding(self, identity: Identity) -> torch.Tensor:
        normalised = self.adapter.config["normalised"]
        if self.adapter.config["pool_photos"]:
            return identity.embedding(normalised=normalised)
        return identity.by_photo(normalised=normalised)

    def _needed_clip(self) -> ClipFeatures | None:
        if self.adapter.config["projection"] != "plus":
            return None
        if self.clip is None:
            repo, subfolder, dim = CLIP_H
            if self.adapter.config["feature_dim"] != dim:
                raise AdapterError(
                    "This adapter reads CLIP features: load_id_adapter(…, image_encoder=<folder or hub id>)."
                )
            self.clip = ClipFeatures(repo, subfolder)
        return self.clip


def _as_list(people: People) -> list[Any]:
    if isinstance(people, torch.Tensor) and people.ndim in (1, 2):
        return list(people[None] if people.ndim == 1 else people)
    if isinstance(people, Sequence) and not isinstance(people, str):
        return list(people)
    return [people]


def region_masks(masks: Any, people: int) -> list[torch.Tensor]:
    """Masks as users have them (pictures, arrays, tensors; white is where the person may be) → (height, width) floats.

    Raises:
        AdapterError: There are not as many as people.
        ImageError: One is not a picture.
    """
    masks = masks if isinstance(masks, list | tuple) else [masks]
    if len(masks) != people:
        raise AdapterError(f"{people} people need as many masks, not {len(masks)}.")
    return [_mask(mask) for mask in masks]


def _mask(mask: Any) -> torch.Tensor:
    if isinstance(mask, torch.Tensor):
        mask = mask.squeeze(0).detach().cpu().numpy()
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * 255
    return torch.from_numpy(load_photo(mask)[..., 0] / np.float32(255))


def _mean_features(identity: Identity) -> torch.Tensor:
    if identity.features is None:
        raise IdentityError(
            f"{identity} holds no CLIP features, which this adapter reads; enrol it with this pipeline."
        )
    assert identity.weights is not None
    return torch.einsum("p,pnc->nc", identity.weights, identity.features)
