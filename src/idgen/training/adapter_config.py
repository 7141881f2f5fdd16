"""`AdapterConfig`: the adapter that a run trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..adapter.placement import Placement
from ..adapter.projections import ProjectionConfig
from ..errors import TrainingError
from ..inputs import AdapterName
from .projection_flag import check_trainable, projection_flag


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The adapter to train, and the modules to train with it.

    Attributes:
        id_adapter: Adapter to continue from: "tiny", a folder, a file or a hub id. Its own configuration then replaces
            projection, num_tokens, num_words, normalised, placement and blocks.
        beside: Frozen adapter that gives the person during the training: "tiny" for that of the built-in model, a
            folder, a file or a hub id. The trained adapter adds to it, such as an expression (--encoder expression-v1)
            or parts of the face (--encoder parts/dlib-resnet-v1).
        frozen: Do not train the adapter of id_adapter, only the IdentityNet or the separate LoRA.
        projection: How an identity embedding becomes tokens: the type of the projection, and sizes that differ from
            its defaults, as in "resampler depth=2".
        num_tokens: Identity tokens per person.
        placement: Where the identity acts: "parallel" to the attention to the text, or "sequential", in gated layers
            before it that start without an effect.
        blocks: Blocks of the UNet that the adapter acts in, such as mid up_blocks.1; all if there is none.
        face_only: Train the identity to act only in the box around the target's face, as with id_masks.
        num_words: Pseudo-words per person, which replace `<id>` in prompts; 0 for none.
        normalised: Scale identity embeddings to unit length.
        random_fusion: Weight text against identity at random in each sample, as PhotoVerse does.
        lora_rank: Rank of the adapter's own LoRA, which is stored in the adapter's file and acts only with an
            identity, as in IP-Adapter FaceID; 0 for none. If the adapter of id_adapter has no LoRA, one is added.
        unet_lora_rank: Rank of a separate LoRA on the UNet, which is stored in a file of its own for
            load_lora_weights and acts with and without an identity; 0 for none.
        identity_net: Also train an IdentityNet, a ControlNet that reads face landmarks: the one in the folder of
            id_adapter, or a new one. Otherwise the adapter is trained without it.
    """

    id_adapter: AdapterName | None = None
    beside: AdapterName | None = None
    frozen: bool = False
    projection: Annotated[ProjectionConfig, projection_flag()] = "mlp"
    num_tokens: int = 4
    placement: Placement = "parallel"
    blocks: tuple[str, ...] = ()
    face_only: bool = False
    num_words: int = 0
    normalised: bool = True
    random_fusion: bool = False
    lora_rank: int = 0
    unet_lora_rank: int = 0
    identity_net: bool = False

    def __post_init__(self) -> None:
        check_trainable(self.projection)
        if self.random_fusion and self.placement != "parallel":
            raise TrainingError("random_fusion weights text against identity: it needs placement 'parallel'.")
        if self.beside is not None and self.identity_net:
            raise TrainingError("An IdentityNet reads the tokens of a person: train it without beside.")
        if self.frozen and self.id_adapter is None:
            raise TrainingError("frozen needs id_adapter, the adapter that is not trained.")
        if self.frozen and not (self.unet_lora_rank or self.identity_net):
            raise TrainingError("Nothing would be trained: frozen needs identity_net or unet_lora_rank.")
