"""The recipe's settings: one frozen dataclass per table of a TOML file such as `tiny.toml`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from idgen.data.framing import AlignedFraming
from idgen.errors import TrainingError
from idgen.typed import arguments


@dataclass(frozen=True)
class Paths:
    """Files and folders; relative paths are relative to the TOML file.

    Args:
        data: Sets of photos; empty: in the shared folder.
        yunet: File of YuNet; empty: in the shared folder.
        start: Model of half the resolution whose latents, UNet and words this one continues; empty: none.
    """

    cache: str
    test_people: str
    output: str
    data: str = ""
    yunet: str = ""
    start: str = ""


@dataclass(frozen=True)
class People:
    """Which names are one person.

    Args:
        same: Two names are one person if two of their photos are nearer than this distance of dlib embeddings.
        between: Other distances for photos of two different sets, such as {"officials-lfw": 0.39}.
    """

    same: float
    between: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Crops:
    """How faces are cut; see `AlignedFraming`. `styled_per_photo` filtered pictures are kept of each photo."""

    size: int
    zoom: float
    rise: float
    styled_per_photo: int

    @cached_property
    def template(self) -> np.ndarray:
        """Where the five landmarks lie in a crop: (5, 2)."""
        return AlignedFraming(self.size, self.zoom, self.rise).template


@dataclass(frozen=True)
class Phase:
    """One training of the autoencoder.

    Args:
        minutes: Budget of time; the phase ends at the first of its two budgets.
        samples: Budget of samples.
        batch: Samples in a batch.
        learning_rate: Learning rate after warm-up.
        patch: Side in pixels of the parts of pictures that it sees; 0 for whole pictures.
        face_share: Share of each batch that the face loss reads; whole pictures only.
        face_weight: Weight of the face loss.
    """

    minutes: float
    samples: int
    batch: int
    learning_rate: float
    patch: int = 0
    face_share: float = 0.0
    face_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.patch and self.face_share:
            raise TrainingError("A phase on patches has no face loss: set face_share = 0 or patch = 0.")


@dataclass(frozen=True)
class Autoencoder:
    """Its shape and its phases.

    Args:
        encoder_width: Channels of the encoder.
    """

    encoder_width: int
    decoder_width: int
    latent_channels: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    styled_share: float
    latent_noise: float
    ema: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Base:
    """UNet and text encoder; `heads_of` is the width of an attention head, `min_snr` the γ of the loss weight."""

    channels: tuple[int, ...]
    heads_of: int
    text_width: int
    text_layers: int
    text_length: int
    minutes: float
    samples: int
    batch: int
    learning_rate: float
    warmup_steps: int
    styled_share: float
    caption_drop: float
    min_snr: float
    ema: float


@dataclass(frozen=True)
class Photos:
    """What `idgen prepare` is given.

    Args:
        styled_share: Share of the pictures that are styled.
        word_share: Share of the captions that call the person `<id>`.
    """

    styled_share: float
    word_share: float


@dataclass(frozen=True)
class Stage:
    """One training on the GPU.

    Args:
        seconds: Budget of time.
        batch: Samples in a batch.
        rate: Highest learning rate.
    """

    seconds: float
    batch: int
    rate: float


@dataclass(frozen=True)
class Config:
    """All tables; `sets` are those of `photos.SETS`."""

    seed: int
    sets: tuple[str, ...]
    paths: Paths
    people: People
    crops: Crops
    autoencoder: Autoencoder
    photos: Photos
    base: Base | None = None
    gpu: Mapping[str, Stage] = field(default_factory=dict)
    folder: Path = Path()

    def path(self, name: str) -> Path:
        """One of `paths`, absolute."""
        defaults = {"data": shared_folder() / "data", "yunet": shared_folder() / "models" / "yunet.onnx"}
        given = getattr(self.paths, name)
        return self.folder / Path(given).expanduser() if given else defaults[name]

    @property
    def start(self) -> Path | None:
        """Folder of the model that this one continues."""
        return self.path("start") if self.paths.start else None

    @property
    def stages(self) -> Mapping[str, Path]:
        """Name of a stage -> its folder in the cache, in their order; a model that continues another has fewer."""
        names = [name for name in STAGES if not (self.start and name in FROM_NOTHING)]
        return {name: self.path("cache") / name for name in names}


STAGES = ("faces", "people", "crops", "labels", "encoder", "autoencoder", "latents", "base", "pipeline", "photos")
"""In their order; see `train.py`."""
FROM_NOTHING = ("latents", "base", "pipeline")
"""Stages that train a base from nothing."""


def load_config(file: Path) -> Config:
    """Read a TOML file of settings.

    Raises:
        TrainingError: A name is unknown or missing, or a value is of the wrong type.
    """
    values = tomllib.loads(file.read_text())
    if "base" in values:
        values["base"] = Base(**arguments(Base, values["base"], f"{file}, base", TrainingError))
    stages = values.get("gpu", {}).items()
    values["gpu"] = {name: Stage(**arguments(Stage, told, f"{file}, {name}", TrainingError)) for name, told in stages}
    phases = values["autoencoder"]["phases"]
    where = f"{file}, phases"
    values["autoencoder"]["phases"] = [Phase(**arguments(Phase, phase, where, TrainingError)) for phase in phases]
    values["folder"] = str(file.resolve().parent)
    return Config(**arguments(Config, values, str(file), TrainingError))


def shared_folder() -> Path:
    """The folder of development photos and networks: `$IDGEN_SHARED`, or `shared` beside the checkout."""
    return Path(os.environ.get("IDGEN_SHARED", Path(__file__).resolve().parents[4] / "shared"))
