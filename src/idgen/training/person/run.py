"""`idgen train person`: a configuration → a tuned folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from ...faces import FaceEncoder
from ...terminal import say
from ...tiny.usage import usage_of
from ..base import BaseModel
from ..dry_run import duration, seconds_per_update
from ..loop import Loop
from ..opening import lock_folder, make_loop, open_run, run_loop
from ..prompt_checks import check_prompts
from ..tracking import METRICS
from ..validation import Validation
from .batches import PROMPTS
from .card import write_card
from .config import PersonConfig
from .likeness import BestWeights, Likeness, Patience, metric_of, open_judge
from .parts import PersonParts, make_parts
from .photos import PersonPhotos


def train_person(config: PersonConfig) -> Likeness | None:
    """Tune on the photos of a person.

    Args:
        config: Configuration of the run.

    Returns:
        The similarity to the person before and after; None after a dry run, if no update was made, and in all but the
        main process.

    Raises:
        TrainingError: The configuration is inconsistent, another run uses the folder, or the folder holds another run.
        ImageError, NoFaceError, ManyFacesError: A photo cannot be used; the error names it.
        BlockedIdentityError: The person is on the blocklist.
        StatisticsError: The margin follows from the statistics of a face encoder that has none.
    """
    if not config.loop.dry_run:
        return _train(_with_learning_rate(config))
    with TemporaryDirectory() as folder:  # the prior pictures are files, and a dry run leaves none
        few = min(config.prior_pictures, config.loop.train_batch_size)
        return _train(_with_learning_rate(replace(config, output_dir=Path(folder), prior_pictures=few)))


def _train(config: PersonConfig) -> Likeness | None:
    with lock_folder(config):
        accelerator, base = open_run(config)
        parts = make_parts(config, base, accelerator)
        judge = _judge(config, parts)
        validate = _validation(config, base, parts, judge)
        best = BestWeights(parts.step, validate, config.output_dir / METRICS, metric_of(judge))
        loop = make_loop(
            config,
            parts.step,
            parts.batches,
            base,
            accelerator,
            data={"photos.content": parts.photos.key},
            validate=best,
            early_stopping=Patience(best=best, patience=config.patience),
        )
        if not config.loop.dry_run:
            _start(loop, best, accelerator)
        done = run_loop(loop)
        accelerator.end_training()
        if not done or not accelerator.is_main_process:
            return None
        return _finish(config, parts, judge, best)


def _with_learning_rate(config: PersonConfig) -> PersonConfig:
    """The configuration with the learning rate of the base model, if it has none; a trained adapter needs a tenth."""
    rate = config.optimizer.learning_rate
    if not rate:
        tuned = config.id_adapter is not None and config.learn != "lora"
        rate = usage_of(config.base).learning_rate / (10 if tuned else 1)
    return replace(config, optimizer=replace(config.optimizer, learning_rate=rate))


def _judge(config: PersonConfig, parts: PersonParts) -> FaceEncoder:
    own = parts.analyzer.encoder.name
    used = config.compares_faces or config.id_adapter is not None
    return open_judge(config.eval_encoder, own, used)


def _validation(config: PersonConfig, base: BaseModel, parts: PersonParts, judge: FaceEncoder) -> Validation:
    """Draws pictures of the person, and compares them with the held-out photo."""
    adapter, usage = parts.step.adapter, usage_of(config.base)
    assert adapter is not None
    prompts = [PROMPTS[0].format(parts.person)] * config.validation_pictures
    check_prompts(prompts[:1], "The prompt", base, adapter)
    return Validation(
        base,
        adapter,
        [{adapter.config["encoder"]: parts.photos.identity}],
        prompts,
        parts.analyzer.detector,
        {judge.name: judge},
        config.output_dir / "validation",
        references=[{judge.name: parts.photos.measured_by(judge)}],
        steps=usage.num_inference_steps,
        guidance_scale=usage.guidance_scale,
        seed=config.loop.seed,
    )


def _start(loop: Loop, best: BestWeights, accelerator: Accelerator) -> None:
    """Measure the similarity before the first update, and say how long the run takes at most."""
    each = seconds_per_update(loop)
    if not accelerator.is_main_process:
        return
    start = time.perf_counter()
    best.start()
    check = time.perf_counter() - start
    updates = loop.config.max_train_steps
    checks = -(-updates // loop.config.checkpointing_steps)
    longest = duration(updates * each + checks * check)
    say(
        f"{updates} updates of {each:.2g} s and {checks} checks of {check:.2g} s take {longest} at most. "
        "The run ends earlier if the similarity stops rising."
    )


def _finish(config: PersonConfig, parts: PersonParts, judge: FaceEncoder, best: BestWeights) -> Likeness:
    """Write the best weights, what was measured, and the model card."""
    folder, photos = config.output_dir, parts.photos
    update, after = best.best()
    parts.step.load(best.folder(update))
    parts.step.save(folder)
    likeness = Likeness(
        encoder=judge.name,
        held_out=photos.is_held_out,
        before=best.before,
        after=after,
        update=update,
        photos=_between(photos, judge) if photos.is_held_out else None,
    )
    likeness.save(folder)
    write_card(config, parts, likeness)
    return likeness


def _between(photos: PersonPhotos, judge: FaceEncoder) -> float:
    """Mean cosine of the held-out photo and the others."""
    crops = [judge.crop(photo.image, photo.face.landmarks)[None] for photo in (*photos.held_out, *photos.train)]
    held, *others = (torch.from_numpy(judge.embed(crop)) for crop in crops)
    return float(F.cosine_similarity(held, torch.cat(others)).mean())
