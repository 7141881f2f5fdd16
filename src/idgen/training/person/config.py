"""The configuration of `idgen train person`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ...commands.shared import FaceOption
from ...errors import TrainingError
from ...inputs import AdapterName, BaseName, EncoderSpec, InputPath
from ..loop_config import LoopConfig
from ..optimizer_config import OptimizerConfig

_BARE = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class PersonConfig:
    """Tune on the photos of one person: a LoRA, pseudo-words for prompts, or both.

    Attributes:
        photos: Folder of photos of the person, or one photo. Of three or more, the last one by name is held out: the
            result is measured on it.
        output_dir: Folder for the result, its checkpoints and its metrics.
        base: Stable Diffusion model: a folder, a hub id, or "tiny" for the built-in model.
        learn: What to train: a LoRA on the UNet, pseudo-words that replace `<id>` in prompts, or both.
        id_adapter: Identity adapter to start from: "tiny", a folder, a file or a hub id. Its tokens and pseudo-words
            of the person are the first guess, and are tuned with the words. Without it, training starts from the class
            word.
        encoder: Face encoder of the identity file and of the triplet loss, without id_adapter; its own otherwise.
        eval_encoder: Another face encoder, never used in training, that measures the pictures and stops the run.
        face: Face to use in photos that show several: the largest, an index (from 0, largest first) or a box.
        blocklist: Refuse people on this list, written by `idgen blocklist`.
        class_word: What the person is, in prompts: person, woman, man.
        rare_word: Word in front of the class word, if only a LoRA is trained without id_adapter.
        num_words: Pseudo-words of the person.
        normalise_words: Hold pseudo-words to the mean and deviation of ordinary words (StableIdentity). They stay
            editable by prompts, and become a little less similar.
        word_list: Text file of those words, separated by spaces or lines. The default is the words that the base model
            knows, or names of famous people.
        lora_rank: Rank of the LoRA.
        dora: Train a DoRA, which separates magnitude and direction of the weights.
        prior_pictures: Pictures of other people that the base model draws and that are trained on with the photos, so
            that the class word keeps its meaning (prior preservation); 0 for none.
        prior_weight: Weight of the loss on them.
        triplet: Weight of the triplet loss: the person's face is nearer to the photo than to a prior picture.
        identity: Weight of the identity loss, the cosine distance of the generated face to the photo. By default 2 if
            an adapter is tuned, since the denoising loss alone makes its pictures less like the person; otherwise 0.
        margin: Margin of the triplet loss; by default it follows from the statistics of the face encoder.
        phase: Share of the noise schedule below which the clean face is compared instead of the noise (StableIdentity,
            0.6); 0 for the denoising loss at all timesteps.
        background_weight: Weight of pixels outside the face, 0 to 1.
        resolution: Side of the training pictures in pixels; by default those of the base model.
        validation_pictures: Pictures drawn at every checkpoint.
        patience: Stop after this many checkpoints in a row that are no better than the best one; 0 to never stop.
        optimizer: Optimizer and learning rate; 0 stands for one that suits the base model, or a tenth of it where an
            adapter is tuned.
        loop: Length of the run, checkpoints and logs.

    Raises:
        TrainingError: The settings contradict each other.
    """

    stage: ClassVar[str] = "person"

    photos: Annotated[InputPath, tyro.conf.Positional]
    output_dir: Annotated[Path, tyro.conf.arg(name="output", aliases=["--output-dir"])]
    base: Annotated[BaseName, tyro.conf.arg(aliases=["--pretrained-model-name-or-path"])] = "tiny"
    learn: Literal["both", "lora", "words"] = "both"
    id_adapter: AdapterName | None = None
    encoder: EncoderSpec = "dlib-resnet-v1"
    eval_encoder: EncoderSpec | None = None
    face: FaceOption = None
    blocklist: InputPath | None = None
    class_word: str = "person"
    rare_word: str = "sks"
    num_words: int = 2
    normalise_words: bool = True
    word_list: InputPath | None = None
    lora_rank: int = 8
    dora: bool = False
    prior_pictures: int = 32
    prior_weight: float = 1.0
    triplet: float = 0.0
    identity: float | None = None
    margin: float | None = None
    phase: float = 0.0
    background_weight: float = 1.0
    resolution: int | None = None
    validation_pictures: int = 4
    patience: int = 3
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=0.0, lr_warmup_steps=10, ema_decay=0.95)
    )
    loop: Annotated[LoopConfig, _BARE] = field(
        default_factory=lambda: LoopConfig(
            max_train_steps=250, train_batch_size=4, checkpointing_steps=50, checkpoints_total_limit=1
        )
    )

    def __post_init__(self) -> None:
        for name in ("num_words", "lora_rank", "validation_pictures"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("prior_pictures", "prior_weight", "triplet", "patience"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.identity_weight < 0:
            raise TrainingError(f"identity must be at least 0, not {self.identity}.")
        if self.triplet and not self.prior_pictures:
            raise TrainingError("The triplet loss compares with prior pictures: prior_pictures must not be 0.")
        if self.prior_pictures and self.loop.train_batch_size < 2:
            raise TrainingError("Half of a batch are prior pictures: train_batch_size must be at least 2.")
        if self.dora and self.learn == "words":
            raise TrainingError("dora needs a LoRA: learn must be 'lora' or 'both'.")

    @property
    def identity_weight(self) -> float:
        """Weight of the identity loss."""
        return self.identity if self.identity is not None else 2.0 if self.id_adapter is not None else 0.0

    @property
    def compares_faces(self) -> bool:
        """Whether a loss reads generated faces."""
        return bool(self.triplet or self.identity_weight)

    @property
    def is_rare_word(self) -> bool:
        """Whether a rare word stands for the person: only a LoRA is trained, from nothing."""
        return self.learn == "lora" and self.id_adapter is None
