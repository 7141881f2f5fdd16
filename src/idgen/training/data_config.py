"""`DataConfig`: how samples are read from the shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..data.far import Far
from ..data.poses import Poses
from ..inputs import Amounts, EncoderSpec


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples are read from the shards.

    Attributes:
        encoder: Face encoder whose embeddings the adapter reads; docs/encoders.md describes them. Defaults to that of
            the shards; embeddings of others are cached by `idgen prepare --encoder FIRST OTHER`.
        resolution: Side in pixels of a square with as many pixels as a training picture; pictures keep their aspect
            ratio. The built-in model's pictures are aligned faces of 128 px.
        paired_ratio: Share of samples whose reference is another photo of the person than the target.
        curriculum_steps: Updates over which that share rises from 0 to paired_ratio, so that the adapter learns from
            the same photo first (FaceChain-FACT); 0 for paired_ratio from the start.
        references: Reference photos per sample.
        far: Take references that are far from the target in pose, in time (column `date`) or in source (column
            `origin`), against copies of the reference; random ones if it is empty.
        drop_text: Probability of dropping only the prompt.
        drop_identity: Probability of dropping only the identity embedding.
        drop_both: Probability of dropping both the prompt and the identity embedding.
        component_dropout: Probability of setting each component of an identity embedding to zero.
        moves: Move input embeddings at random along directions of attributes, by at most so many steps, as in
            smile=1 age=0.5: the adapter learns to leave these attributes to the prompt. See docs/attributes.md.
        flip: Probability of mirroring a target; 0 where captions say left or right.
        poses: Random poses of aligned faces, for an IdentityNet.
        dataloader_num_workers: Processes that load data; 0 to load in the main process.
        group: What a sample shows: "face", one face of a photo; or "photo", a photo with all its people, or a
            composite of several photos (see people).
    """

    encoder: EncoderSpec | None = None
    resolution: int = 512
    paired_ratio: float = 1.0
    curriculum_steps: int = 0
    references: int = 1
    far: Far = ""
    drop_text: float = 0.05
    drop_identity: float = 0.05
    drop_both: float = 0.05
    component_dropout: float = 0.0
    moves: Amounts = field(default_factory=dict)
    flip: float = 0.5
    poses: Poses = field(default_factory=Poses)
    dataloader_num_workers: int = 0
    group: Literal["face", "photo"] = "face"
