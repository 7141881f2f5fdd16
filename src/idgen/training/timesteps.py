"""`idgen evaluate --by-timestep`: predictions of photos at each timestep, and the windows of losses that follow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..adapter import IdentityTokens
from ..data.dataset import CAPTION
from ..data.framing import Framing, Place, framing_for
from ..errors import EvaluationError, NoFaceError
from ..evaluation.cases import Case, enroll_cases, load_cases
from ..evaluation.launched import processes
from ..evaluation.options import EvaluateOptions
from ..evaluation.prompts import load_prompts
from ..faces import FaceAnalyzer, load_photo
from ..faces.onnx_encoder import OnnxNetwork
from ..files import write_bytes
from ..identity import Identity
from ..losses import LOSSES, Weight
from ..pages import new_figure
from ..pipelines.loaded import LoadedAdapter
from ..terminal import working
from ..vae import encode_images
from .base import BaseModel
from .probes import Predictions, Probe, probe_group, probe_identity, probe_labels
from .randomness import normal

BINS = 20
"""Parts of the noise schedule; the timestep in the middle of each is measured."""
BATCH = 10
FILE = "timesteps"


class Known(NamedTuple):
    """A person of the evaluation.

    Attributes:
        case: The person.
        identity: The reference photo, which the adapter is conditioned on.
        photo: (height, width, 3) uint8, the target as a training picture.
        place: Where the face is in it.
    """

    case: Case
    identity: Identity
    photo: np.ndarray
    place: Place


class Measurement(NamedTuple):
    """What `measure` returns: the middle of each part of the schedule, the share of predictions with the identity in
    which a face is found, and the probes."""

    timesteps: list[int]
    found: list[float]
    probes: list[Probe]


def evaluate_by_timestep(options: EvaluateOptions, open_pipeline: Callable[..., Any]) -> list[str]:
    """Measure people of the command line, and write the results to the output folder.

    Args:
        options: Options of `idgen evaluate`.
        open_pipeline: `(base, adapter, weight_name, device)` → a pipeline with an adapter.

    Returns:
        Lines for the terminal; none in all but the main process.

    Raises:
        EvaluationError, NoFaceError, CheckpointError: The input cannot be used.
    """
    if not processes().is_main_process:
        return []
    if options.identities is None or options.drawn or options.compare is not None:
        raise EvaluationError("--by-timestep needs --identities, and does not go with --drawn or --compare.")
    cases = load_cases(options.identities)
    pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, options.device)
    classifier = None if options.classifier is None else OnnxNetwork(options.classifier)
    prompt = load_prompts(options.prompts)[0].text if options.prompts else None
    with working(f"Predicting {len(cases)} photos at {BINS} timesteps …"):
        found = measure(pipeline, options.base, cases, prompt=prompt, detector=options.detector, classifier=classifier)
        return write(options.output, found)


def measure(
    pipeline: Any,
    base: str,
    cases: Sequence[Case],
    *,
    prompt: str | None = None,
    detector: Path | None = None,
    classifier: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Measurement:
    """Predict x0 of the target photos at each timestep, with the identity of the reference photo and without.

    Args:
        pipeline: Pipeline with an adapter.
        base: Name of its base model, which says how pictures are cut from photos.
        cases: People with a reference and a target photo.
        prompt: Prompt; the caption of photos without one by default.
        detector: YuNet file; by default the detector that belongs to the adapter's face encoder.
        classifier: (n, height, width, 3) uint8 → (n, labels), a score for each label.

    Raises:
        EvaluationError: A person has no target photo, a picture shows several people, or the adapter reads image
            features, which training does not provide.
        NoFaceError: A target photo shows no face.
    """
    model = BaseModel(pipeline, pipeline.unet.dtype, pipeline.device)
    loaded: LoadedAdapter = next(iter(pipeline._loaded_adapters.values()))
    if loaded.adapter.feature_dim is not None:
        raise EvaluationError("--by-timestep is for adapters that can be trained; this one reads image features.")
    nn.Module.to(loaded.adapter, device=model.unet.device, dtype=model.unet.dtype)
    analyzer = loaded.face_analyzer
    if detector is not None:
        from ..faces.opencv import YuNetDetector

        analyzer = FaceAnalyzer(YuNetDetector(detector), analyzer.encoder)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    people = list(_read(pipeline, cases, framing_for(base, side), analyzer))
    total = model.parametrisation.num_train_timesteps
    timesteps = [int((i + 0.5) / BINS * total) for i in range(BINS)]
    both = [
        _predict(model, loaded, analyzer, one, timesteps, prompt or CAPTION, seed) for seed, one in enumerate(people)
    ]
    with_id, without_id = ([pair[i] for pair in both] for i in range(2))
    photos = np.stack([_embed(analyzer, [one.photo], one.place)[0] for one in people])
    references = np.stack([one.identity.embedding(normalised=True).float().numpy() for one in people])
    probes = [probe_identity(photos, references, with_id, without_id)]
    groups = np.array([one.case.group for one in people])
    if len({*groups} - {""}) > 1:
        probes.append(probe_group(photos, references, groups, with_id, without_id))
    if classifier is not None:
        probes.append(probe_labels(classifier, [one.photo for one in people], with_id, without_id))
    return Measurement(timesteps, np.mean([each.found for each in with_id], 0).tolist(), probes)


def _read(pipeline: Any, cases: Sequence[Case], framing: Framing, analyzer: FaceAnalyzer) -> Iterator[Known]:
    if wrong := [case.name for case in cases if case.target is None or len(case.references) > 1]:
        raise EvaluationError(
            f"--by-timestep needs one person per picture, with a reference and a target photo, unlike {wrong[:5]}."
        )
    identities = enroll_cases(pipeline, cases)
    for case in cases:
        photo = load_photo(case.target)  # pyright: ignore[reportArgumentType]
        faces = analyzer.analyze(photo)
        if not faces:
            raise NoFaceError(f"No face in the target photo of {case.name}; choose another one, or leave it out.")
        box, points = faces[0].box.tolist(), faces[0].landmarks
        place = framing.place(photo.shape[1], photo.shape[0], box, points)
        yield Known(case, identities[case.name][0], framing.cut(photo, box, points), place)


@torch.no_grad()
def _predict(
    model: BaseModel,
    loaded: LoadedAdapter,
    analyzer: FaceAnalyzer,
    person: Known,
    timesteps: Sequence[int],
    prompt: str,
    seed: int,
) -> tuple[Predictions, Predictions]:
    """Predictions with the identity and without, from the same noise."""
    where, t = model.unet.device, torch.tensor(timesteps, device=model.unet.device)
    latents = encode_images(model.pipeline.vae, person.photo[None]).to(where).expand(len(t), -1, -1, -1)
    noise = normal(latents.shape, torch.Generator().manual_seed(seed)).to(where)
    noisy = model.scheduler.add_noise(latents, noise, t)
    (tokens,) = loaded.encode(id_image=[person.identity], num_prompts=1, together=False)

    def predict(identity: IdentityTokens | None) -> Predictions:
        text, made = model.encode([prompt], identity), []
        for part in torch.arange(len(t), device=where).split(BATCH):
            expanded = {name: value.expand(len(part), *value.shape[1:]) for name, value in text.items()}
            time_ids = torch.tensor([person.place.time_ids] * len(part), device=where)
            with nullcontext() if identity is None else loaded.adapter.activate([identity], len(part)):
                output = model.predict(noisy[part], t[part], expanded, time_ids)
            made.append(model.decode(model.parametrisation.predict_x0(output, noisy[part], t[part])).cpu())
        pixels = torch.cat(made).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        found = np.array([bool(analyzer.detector.detect(picture)) for picture in pixels])
        return Predictions(pixels, _embed(analyzer, pixels, person.place), found)

    return predict(tokens), predict(None)


def _embed(analyzer: FaceAnalyzer, pictures: Sequence[np.ndarray] | np.ndarray, place: Place) -> np.ndarray:
    """(n, dim), embeddings of unit length of the faces at known landmarks."""
    faces = analyzer.analyze_batch(list(pictures), [place.landmarks] * len(pictures))
    return _unit(np.stack([face.embedding for (face,) in faces]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write(folder: Path, measurement: Measurement) -> list[str]:
    """Write `timesteps.json` and `timesteps.png`; returns the lines for the terminal.

    Raises:
        EvaluationError: A file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    told = {**measurement._asdict(), "probes": [asdict(p) | {"window": p.window} for p in measurement.probes]}
    write_bytes(folder / f"{FILE}.json", json.dumps(told, indent=1).encode(), EvaluationError)
    write_bytes(folder / f"{FILE}.png", _plot(measurement), EvaluationError)
    return [*_table(measurement), "", *map(_proposal, measurement.probes)]


def _table(measurement: Measurement) -> Iterator[str]:
    columns = [f"{probe.name}{said}" for probe in measurement.probes for said in (", with identity", ", without")]
    yield f"| t/T | faces found | {' | '.join(columns)} |"
    yield "| --- " * (len(columns) + 2) + "|"
    ends = [f"{probe.photo:.3f}" for probe in measurement.probes for _ in range(2)]
    yield f"| photos | | {' | '.join(ends)} |"
    for i, found in enumerate(measurement.found):
        values = [f"{curve[i]:.3f}" for probe in measurement.probes for curve in (probe.with_id, probe.without_id)]
        yield f"| {(i + 0.5) / BINS:.3f} | {found:.0%} | {' | '.join(values)} |"
    ends = [f"{probe.chance:.3f}" for probe in measurement.probes for _ in range(2)]
    yield f"| chance | | {' | '.join(ends)} |"


def _proposal(probe: Probe) -> str:
    if probe.window is None:
        return f"{probe.name}: no window; the predictions show too little of it, or noise removes too little."
    start, end = probe.window
    if probe.name != "identity":
        return f"{probe.name}: @{start}-{end} for losses on it"
    return f"identity: --losses identity={Weight(LOSSES.rows['identity'].weight, (start, end))}"


def _plot(measurement: Measurement) -> bytes:
    """Each probe with the identity (solid) and without (dashed), as share of what the photos show."""
    figure, axes = new_figure(6.5, 3.4)
    shares = [(i + 0.5) / BINS for i in range(BINS)]
    for number, probe in enumerate(measurement.probes):
        for curve, style, said in ((probe.with_id, "-", "with"), (probe.without_id, "--", "without")):
            scaled = (np.array(curve) - probe.chance) / max(probe.photo - probe.chance, 1e-6)
            axes.plot(shares, scaled, style, color=f"C{number}", label=f"{probe.name}, {said} identity")
        if probe.window is not None:
            axes.axvspan(*probe.window, color=f"C{number}", alpha=0.08)
    axes.plot(shares, measurement.found, ":", color="grey", label="faces found")
    axes.set_xlabel("t/T")
    axes.set_ylabel("0: chance, 1: the photos")
    axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
