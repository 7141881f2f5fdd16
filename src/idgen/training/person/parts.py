"""The parts of a run on one person: the adapter, the training step and the batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from ...adapter import IdentityAdapter
from ...commands.shared import read_face_option
from ...data.cache import framing_for
from ...data.framing import Framing, PhotoFraming
from ...data.makers import encode_images
from ...errors import StatisticsError, TrainingError
from ...faces import EncoderStatistics, FaceAnalyzer, load_photo, register_encoder, spec_of
from ...losses import LossConfig, LossSettings, make_losses
from ...losses.embedders import open_embedder
from ...losses.table import UNTIL
from ...pipelines.prompts import PLACEHOLDER
from ...tiny.usage import Usage, usage_of
from ..base import BaseModel
from ..distributed import on_main
from ..face_config import FaceConfig
from ..faces import embed_prior, open_decoder
from ..trainable import UNetLoRA
from .batches import PROMPTS, PersonBatches
from .config import PersonConfig
from .photos import PersonPhotos, read_photos
from .prior import draw_prior
from .step import PersonStep, token_of
from .words import adapter_of_words, words_of

PRIOR = "prior"
"""Folder of the prior pictures."""


class PersonParts(NamedTuple):
    """The parts of a run.

    Attributes:
        photos: The person's photos.
        analyzer: With the face encoder that the adapter reads.
        person: The person in prompts: `<id>`, or the class word for an adapter without pseudo-words.
        step: The training step.
        batches: Its batches.
    """

    photos: PersonPhotos
    analyzer: FaceAnalyzer
    person: str
    step: PersonStep
    batches: PersonBatches


def make_parts(config: PersonConfig, base: BaseModel, accelerator: Accelerator) -> PersonParts:
    """Read the photos, draw the prior pictures, and make adapter, LoRA, step and batches.

    Raises:
        TrainingError, ImageError, NoFaceError, ManyFacesError, BlockedIdentityError, StatisticsError: See
            `train_person`.
    """
    usage = usage_of(config.base)
    native = base.unet.config.sample_size * base.pipeline.vae_scale_factor
    side = usage.resolution or config.resolution or native
    start = None if config.id_adapter is None else IdentityAdapter.from_pretrained(config.id_adapter)
    encoder = register_encoder(config.encoder) if start is None else start.config["encoder"]
    losses = losses_of(config, encoder)
    analyzer = FaceAnalyzer.for_encoder(encoder)
    photos = read_photos(config.photos, analyzer, read_face_option(config.face), config.blocklist)
    others, folder = f"a {config.class_word}", config.output_dir / PRIOR
    prior = _prior(config, base, folder, PROMPTS[0].format(others), side, usage)
    adapter = _new_adapter(config, base, photos, usage) if start is None else _tuned(start, config)
    adapter.to(base.unet.device).attach(base.unet)
    person = _in_prompts(config, adapter)
    step = PersonStep(
        base,
        adapter,
        make_losses(losses, base.parametrisation),
        lora=None if config.learn == "words" else UNetLoRA(base.unet, config.lora_rank, config.dora),
        person=photos.identity,
        token=token_of(config.output_dir),
        prior_weight=config.prior_weight,
        **_networks(config, encoder, base),
    )
    pictures = photos.pictures(_square(framing_for(config.base, side)), config.loop.seed)
    latents = _encode(base, pictures.pixels)
    batches = PersonBatches(
        latents=latents,
        landmarks=torch.from_numpy(pictures.landmarks),
        embeds=photos.identity.embeddings[pictures.photos],
        prior=_encode(base, [load_photo(file) for file in prior]) if prior else latents[:0],
        id_embeds=_as_read(photos, adapter),
        encoder=encoder,
        person=person,
        others=others,
        size=config.loop.train_batch_size,
        side=side,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        seed=config.loop.seed,
    )
    return PersonParts(photos, analyzer, person, step, batches)


def losses_of(config: PersonConfig, encoder: str) -> LossConfig:
    """The losses, with the margin that fits the face encoder."""
    losses = LossConfig.only(
        denoising=0.0 if config.phase else 1.0,
        two_phase=1.0 if config.phase else 0.0,
        triplet=f"{config.triplet}@decay",
        identity=f"{config.identity_weight}@{UNTIL}",
        phase=config.phase,
        background_weight=config.background_weight,
        margin=config.margin,
        prior_dir=str(config.output_dir / PRIOR),
    )
    if not (config.triplet and config.margin is None):
        return losses.fitted()
    try:
        return losses.fitted(LossSettings.fitting(EncoderStatistics.of(encoder)))
    except StatisticsError as error:
        raise StatisticsError(f"The margin of the triplet loss is not known: give --margin. {error}") from error


def _prior(config: PersonConfig, base: BaseModel, folder: Path, prompt: str, side: int, usage: Usage) -> list[Path]:
    """The prior pictures, drawn by the main process."""
    if not config.prior_pictures:
        return []
    about = (folder, prompt, config.prior_pictures, side, usage, config.loop.seed)
    return on_main(draw_prior, base, *about)


def _new_adapter(config: PersonConfig, base: BaseModel, photos: PersonPhotos, usage: Usage) -> IdentityAdapter:
    """An adapter of pseudo-words. If only a LoRA is trained, they are the rare word, and stay so."""
    if config.learn == "lora":
        return adapter_of_words(base, photos.identity, config.rare_word, None).requires_grad_(False)
    words = words_of(config.word_list, usage) if config.normalise_words else ()
    return adapter_of_words(base, photos.identity, config.class_word, config.num_words, words)


def _tuned(adapter: IdentityAdapter, config: PersonConfig) -> IdentityAdapter:
    """An adapter to start from: its projections to tokens and pseudo-words are trained with the words."""
    if adapter.to_tokens.reads_features:
        raise TrainingError(
            f"'{config.id_adapter}' reads image features beside the face embedding. train person starts from adapters "
            "that read the embedding alone."
        )
    adapter.train().requires_grad_(False)
    if config.learn != "lora":
        adapter.to_tokens.requires_grad_(True)
        adapter.to_words.requires_grad_(True)
    return adapter


def _in_prompts(config: PersonConfig, adapter: IdentityAdapter) -> str:
    """The person in prompts. The rare word stands in front of the class word."""
    if not adapter.config["num_words"]:
        return f"a {config.class_word}"
    return f"{PLACEHOLDER} {config.class_word}" if config.is_rare_word else PLACEHOLDER


def _networks(config: PersonConfig, encoder: str, base: BaseModel) -> dict[str, Any]:
    """What losses on generated faces read."""
    if not config.compares_faces:
        return {}
    embedder = open_embedder(spec_of(encoder))
    embedder.encoder.to(base.unet.device)
    found = {"embedder": embedder, "decoder": open_decoder(FaceConfig(), base)}
    if not config.triplet:
        return found
    own = FaceAnalyzer.for_encoder(encoder).encoder
    return {**found, "prior": on_main(embed_prior, str(config.output_dir / PRIOR), own)}


def _as_read(photos: PersonPhotos, adapter: IdentityAdapter) -> torch.Tensor:
    """The person as the adapter reads it, (dim,), or (photos, dim) for an adapter with tokens for each photo."""
    config = adapter.config
    read = photos.identity.embedding if config["pool_photos"] else photos.identity.by_photo
    return read(normalised=config["normalised"])


def _encode(base: BaseModel, pictures: Iterable[np.ndarray]) -> torch.Tensor:
    """Pictures of one size → latents, one at a time."""
    return torch.cat([encode_images(base.pipeline.vae, picture[None]) for picture in pictures])


def _square(framing: Framing) -> Framing:
    """A framing whose pictures have one size, as those of a batch must."""
    return PhotoFraming(framing.resolution, max_ratio=1) if isinstance(framing, PhotoFraming) else framing
