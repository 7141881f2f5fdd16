"""`idgen train restorer`: a ControlNet learns to denoise faces beside their damaged versions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from ..adapter import Restorer
from ..adapter.restorer import CURVE, IdScaleCurve
from ..data.dataset import PairedIdentityDataset
from ..data.framing import framing_for
from ..data.loader import PairedLoader
from ..data.manifest import Manifest
from ..data.pairing import Pairing
from ..data.sample import Sample
from ..evaluation.edits import psnr
from ..faces import Degradation, FaceAnalyzer, measure_degradation
from ..identity import Identity
from ..losses import TermLog, Weighted
from ..terminal import say
from .base import BaseModel
from .batch import Batch
from .opening import lock_folder, make_loop, open_run, run_loop
from .randomness import Generators, integers, normal
from .restorer_config import RestorerConfig
from .shard_batches import ShardBatches
from .step import TrainingStep
from .trainable import conditioning_channels

GRID = (0.0, 0.5, 1.0)
"""Identity scales that the curve is chosen from, for the first and for the second half of the steps."""

DAMAGES = (Degradation(shrink=1.5), Degradation(blur=0.8, shrink=3, jpeg=75), Degradation(blur=1, shrink=8, jpeg=40))
"""Slight, medium and strong damage, which the curve is fitted on."""


class DegradedBatches(ShardBatches):
    """Batches with damaged pictures, `Batch.condition`; the damage follows from the seed and the batch's number."""

    def _batch(self, samples: Sequence[Sample]) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        random = np.random.default_rng([self.loader.dataset.seed, self.loader.rank, self.loader.number])
        damaged = [
            Degradation.draw(random)(sample.picture.numpy(), seed=int(random.integers(2**32))) for sample in samples
        ]
        return replace(super()._batch(samples), condition=as_condition(damaged))


def as_condition(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """(height, width, 3) uint8 each → (n, 3, height, width) in [0, 1], as a ControlNet reads them."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


class RestorationStep(TrainingStep):
    """The mean squared error of the prediction, beside the damaged picture and without a person."""

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Evaluate the loss of a batch, inside `with step:`; arguments as in `IdentityDenoiser`."""
        schedule, device = self.base.parametrisation, batch.latents.device
        timesteps = integers(0, schedule.num_train_timesteps, len(batch), random).to(device)
        noise = normal(batch.latents.shape, random).to(device)
        noisy = self.base.scheduler.add_noise(batch.latents, noise, timesteps)
        output = self.predict(batch, noisy, timesteps, self.base.read(batch))
        values = (output.float() - schedule.target(batch.latents, noise, timesteps)).square().flatten(1).mean(1)
        count = torch.tensor(float(len(batch)), device=device)
        return Weighted(values, {"denoising": TermLog(values.detach().sum(), count, torch.zeros_like(count))})


def train_restorer(config: RestorerConfig) -> int:
    """Train until the end or a signal, then fit the curve; returns the number of updates, 0 after a dry run.

    Raises:
        TrainingError, DataError: As `train_denoising`.
    """
    with lock_folder(config):
        accelerator, base = open_run(config)
        restorer: Any = Restorer.from_unet(base.unet, conditioning_embedding_out_channels=conditioning_channels(base))
        restorer.train().to(base.unet.device, torch.float32)
        batches = open_degraded(config, base, accelerator.process_index, accelerator.num_processes)
        step = RestorationStep(base, None, restorer=restorer)
        data = {"train_data_dir.photos": batches.key()}
        done = run_loop(make_loop(config, step, batches, base, accelerator, data=data))
        if done and config.fit_people and accelerator.is_main_process:
            fit_curve(config, batches)
        accelerator.end_training()
        return done


def closing(config: RestorerConfig) -> list[str]:
    """What to do with the restorer."""
    return [f"Next: idgen restore old.jpg --photo anna.jpg --restorer {config.output_dir}"]


def open_degraded(config: RestorerConfig, base: BaseModel, rank: int, world: int) -> DegradedBatches:
    """The training split of the shards, as pictures and their damaged versions."""
    encoder = Manifest.open(config.train_data_dir).encoder
    dataset = PairedIdentityDataset(
        config.train_data_dir,
        framing=framing_for(config.base, config.resolution),
        pairing=Pairing(drop_text=config.drop_text, drop_identity=0.0, drop_both=0.0),
        encoder=encoder,
        compare=(encoder,),
        seed=config.loop.seed,
    )
    loader = PairedLoader(dataset, config.loop.train_batch_size, rank=rank, world=world)
    return DegradedBatches(loader, base.pipeline.vae, encode=base.encode)


def fit_curve(config: RestorerConfig, batches: DegradedBatches) -> IdScaleCurve:
    """Fit the curve of the identity scale on people of the training split, and store it with the restorer.

    Each photo is damaged in three ways and restored with every pair of scales of the grid, with the person's other
    photo where there is one. The pair of the largest mean of cosine similarity to the undamaged face, by the encoder
    that the adapter reads, plus PSNR / 20 dB is kept for the mean degradation of each damage.
    """
    from ..commands.shared import open_pipeline

    pipeline = open_pipeline(config.base, config.id_adapter, None, None)
    pipeline.set_progress_bar_config(disable=True)
    restorer = Restorer.from_pretrained(config.output_dir)
    photos = list(itertools.islice(_photos(batches), config.fit_people))
    reading = FaceAnalyzer.for_encoder(next(iter(pipeline.id_adapters.values())).config["encoder"])
    points = [_best_scales(pipeline, restorer, reading, photos, damage) for damage in DAMAGES]
    points = sorted({point[0]: point for point in points}.values())
    curve = IdScaleCurve(*(tuple(round(value, 4) for value in column) for column in zip(*points, strict=True)))
    restorer.curve = curve
    restorer.save_pretrained(config.output_dir)
    say(f"{CURVE}: {json.dumps(asdict(curve))}")
    return curve


def _best_scales(
    pipeline: Any,
    restorer: Restorer,
    reading: FaceAnalyzer,
    photos: Sequence[tuple[np.ndarray, np.ndarray, Identity]],
    damage: Degradation,
) -> tuple[float, float, float]:
    """Mean degradation of a kind of damage, and the best scales in the first and in the second half of the steps."""
    from ..pipelines.face_crop import FaceCrop, crop_framing

    framing, found = crop_framing(pipeline), []
    scores = dict.fromkeys(itertools.product(GRID, GRID), 0.0)
    for i, (photo, landmarks, person) in enumerate(photos):
        whole = FaceCrop.of(photo, landmarks, framing)
        truth, points = whole.pixels, whole.points
        damaged = damage(truth, seed=i)
        found.append(measure_degradation(damaged))
        target = _direction(reading, truth, points)
        for pair in scores:
            scale = IdScaleCurve((0.0,), *((each,) for each in pair)).schedule(0.0)
            drawn = pipeline.restore(
                damaged,
                restorer=restorer,
                id_embeds=person,
                id_scale=scale,
                landmarks=points,
                generator=torch.Generator().manual_seed(i),
            )
            image = np.asarray(drawn.images[0])
            scores[pair] += float(_direction(reading, image, points) @ target) + min(psnr(image, truth), 60.0) / 20
    best = max(scores, key=lambda pair: scores[pair])
    return float(np.mean(found)), *best


def _direction(reading: FaceAnalyzer, image: np.ndarray, points: np.ndarray) -> np.ndarray:
    found = reading.encoder.embed(reading.encoder.crop(image, points)[None])[0]
    return found / np.linalg.norm(found)


def _photos(batches: DegradedBatches) -> Iterator[tuple[np.ndarray, np.ndarray, Identity]]:
    """Pictures, landmarks and identities of different people, from another photo where there is one."""
    dataset = batches.loader.dataset
    for start in dataset.bank.starts:
        sample = dataset[0, int(start)]
        person = Identity(embeddings=sample.id_embeds.reshape(1, -1), encoder=dataset.encoder)
        yield sample.picture.numpy(), sample.landmarks.numpy(), person
