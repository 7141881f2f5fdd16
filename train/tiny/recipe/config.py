"""The recipe's settings: one frozen dataclass per table of a TOML file such as `tiny.toml`."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idgen.training.config import LossConfig
from idgen.training.rollout import Method


@dataclass(frozen=True)
class Paths:
    """Where things lie; relative paths count from the TOML file."""

    cache: Path
    data: Path
    yunet: Path
    test_people: Path
    output: Path


@dataclass(frozen=True)
class People:
    """Who counts as one person.

    Args:
        same: Names of whom two photos are nearer than this distance of dlib embeddings.
        between: Other distances, for photos of two different sets: (set, set, distance).
    """

    same: float
    between: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class Crops:
    """How the face is cut: the ArcFace template × `zoom`, moved up by `rise` of its 112 pixels."""

    size: int
    zoom: float
    rise: float
    styled_per_photo: int


@dataclass(frozen=True)
class Phase:
    """One training of the autoencoder.

    Args:
        patch: Side in pixels of the parts of pictures that it sees; 0 for whole pictures.
        face_share: Of each batch that the face network sees, whose loss counts `face_weight`; whole pictures only.
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
            raise ValueError("A phase on patches has no face loss: set face_share = 0 or patch = 0.")


@dataclass(frozen=True)
class Autoencoder:
    """Its shape and its phases.

    Args:
        encoder_width: Channels of the encoder.
        components: With a number the encoder is the principal components of 8 x 8 patches, which are found, not
            trained, and their deviations in the latents are those in the pictures to this power; without, it is
            trained.
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
    components: float | None = None


@dataclass(frozen=True)
class Base:
    """UNet and text encoder; `heads_of` is the width of an attention head, `min_snr` the bound of the loss weight."""

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
class Joint:
    """UNet and adapter together; `min_snr` as in `Base`, 0 weighs all timesteps alike."""

    minutes: float
    samples: int
    batch: int
    learning_rate: float
    min_snr: float
    ema: float


@dataclass(frozen=True)
class Adapter:
    """The identity adapter, with a LoRA of `lora_rank`; `losses` are those of `idgen.training.config`."""

    num_tokens: int
    hidden_dim: int
    num_words: int
    lora_rank: int
    word_share: float
    paired_share: float
    steps: int
    batch: int
    learning_rate: float
    styled_share: float
    caption_drop: float
    identity_drop: float
    negatives: int
    ema: float
    losses: LossConfig


@dataclass(frozen=True)
class Reward:
    """An adapter's second training: `last` of `rollout` denoising steps have a gradient, and beside the reward's
    `weight` stand those of the base outside the face and of denoising photos. `share`, between 0 and 1, is what the
    weights after it count in the finished adapter, against those before."""

    steps: int
    learning_rate: float
    method: Method
    rollout: int
    last: int
    guidance_scale: float
    weight: float
    preservation: float
    denoising: float
    share: float


@dataclass(frozen=True)
class Net:
    """The IdentityNet, and how faces lie that it learns from: turned by up to `angle` degrees, scaled, and shifted by
    up to `shift` of the side."""

    angle: float
    scale: tuple[float, float]
    shift: float
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Table:
    """How adapters are compared: `people` of either set, drawn under every prompt."""

    people: int
    steps: int
    guidance_scale: float


@dataclass(frozen=True)
class Config:
    """All tables; an unknown or missing key is an error when the file is read. `sets` are those of `photos.SETS`."""

    seed: int
    sets: tuple[str, ...]
    paths: Paths
    people: People
    crops: Crops
    autoencoder: Autoencoder
    base: Base
    joint: Joint
    adapter: Adapter
    reward: Reward
    identity_net: Net
    table: Table


def load_config(file: Path, gpu: bool = False) -> Config:
    """Read a TOML file of settings; with `gpu` the tables below `gpu` count before those of the same name."""
    table = tomllib.loads(file.read_text())
    for name, values in table.pop("gpu", {}).items():
        table[name] = table[name] | (values if gpu else {})
    tables: dict[str, type] = {
        "people": People,
        "crops": Crops,
        "autoencoder": Autoencoder,
        "base": Base,
        "joint": Joint,
        "adapter": Adapter,
        "reward": Reward,
        "identity_net": Net,
        "table": Table,
    }
    if unknown := set(table) - {"seed", "sets", "paths", *tables}:
        raise ValueError(f"{file}: unknown tables {sorted(unknown)}.")
    paths = _paths(table["paths"], file.resolve().parent)
    return Config(
        table["seed"], tuple(table["sets"]), paths, **{name: _fill(kind, table[name]) for name, kind in tables.items()}
    )


def shared_folder() -> Path:
    """The folder of development photos and networks: `$IDGEN_SHARED`, or `shared` beside the checkout."""
    return Path(os.environ.get("IDGEN_SHARED", Path(__file__).resolve().parents[4] / "shared"))


def _fill(kind: type, table: dict[str, Any]) -> Any:
    if "losses" in table:
        table = {**table, "losses": LossConfig(**LossConfig.nest(table["losses"]))}
    if "phases" in table:
        table = {**table, "phases": [Phase(**phase) for phase in table["phases"]]}
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _paths(table: dict[str, str], folder: Path) -> Paths:
    defaults = {"data": shared_folder() / "data", "yunet": shared_folder() / "models" / "yunet.onnx"}
    found = {key: folder / Path(value).expanduser() if value else defaults[key] for key, value in table.items()}
    return Paths(**found)
