"""Options of `idgen evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..data.engine_options import EngineOptions
from ..errors import EvaluationError
from ..inputs import AdapterName, BaseName, EncoderSpec, InputPath, NetworkName


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `idgen evaluate`.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model that comes with the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id.
        weight_name: File of the adapter, if its folder or repository holds several.
        lora: LoRA for this base: a folder, a file or a hub id. With one of `idgen train distil`, steps and
            guidance_scale are those that it is made for. A LoRA in the folder of the adapter is loaded without this.
        encoder: Face encoder that the adapter reads; needed only if it is a file or code of your own.
        identities: People: a folder with one folder of photos per person (the first photo is the reference, the second
            the target), a .csv (person, reference, target, prompt, group, noun), or a folder in MultiID-Bench's
            layout.
        prompts: Prompt set (fastcomposer, pulid-portrait or tiny) or text file; the default is each person's own
            prompt.
        output: Folder of pictures and report. An interrupted run continues there when it is started again.
        people: People in each picture, 1 to 4: the people of --identities are put together in their order. Pictures
            of the built-in model are as many faces wide.
        masks: Where several people are told to be: in strips from left to right ("strips"), or nowhere ("none"), for
            an adapter that was trained to place them.
        count: Pictures per person and prompt; they use consecutive seeds.
        seed: First seed.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        steps: Denoising steps; by default 25, or those that the LoRA is made for.
        guidance_scale: Strength of classifier-free guidance; by default what the base model recommends, or 5.
        batch_size: Pictures drawn at once.
        eval_encoder: Face encoders to measure with, besides the adapter's own; docs/encoders.md describes them. The
            default is one that the adapter does not read.
        trained_with: Encoders that the adapter's losses or rewards used. They are reported, but never as the headline.
        detector: YuNet file; replaces dlib's face detector.
        clip: CLIP model for CLIP-T and CLIP-I: a folder or a hub id.
        classifier: ONNX classifier of the prompts' labels; measures prompt fidelity instead of CLIP-T.
        group_classifier: ONNX classifier of aligned faces with labels: estimates the groups of people without a group
            in the data. Estimators err, and more often in some groups than in others.
        features: ONNX feature network for the Fréchet distance between results and real photos.
        drawn: Measure the `out.jpg` files in MultiID-Bench's layout instead of drawing.
        write_multiid: Also write the results in MultiID-Bench's layout.
        compare: Compare two folders of reports instead of drawing.
        by_timestep: Instead of drawing, predict the people's target photos at each timestep, measure what the
            predictions show of them, and propose windows for losses. It reads the first of the prompts.
        device: Device to compute on; the default is a GPU if there is one.
        engine: Which processes draw the pictures.
    """

    base: BaseName = "tiny"
    id_adapter: AdapterName | None = None
    weight_name: str | None = None
    lora: NetworkName | None = None
    encoder: EncoderSpec | None = None
    identities: InputPath | None = None
    prompts: str | None = None
    output: Path = Path("report")
    people: int = 1
    masks: Literal["strips", "none"] = "strips"
    count: Annotated[int, tyro.conf.arg(aliases=["--seeds"])] = 1
    seed: int = 0
    id_scale: float = 0.8
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 1
    eval_encoder: tuple[EncoderSpec, ...] = ()
    trained_with: tuple[str, ...] = ()
    detector: InputPath | None = None
    clip: str | None = None
    classifier: InputPath | None = None
    group_classifier: InputPath | None = None
    features: InputPath | None = None
    drawn: bool = False
    write_multiid: bool = False
    compare: tuple[InputPath, InputPath] | None = None
    by_timestep: bool = False
    device: str | None = None
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if self.engine != EngineOptions() and (self.drawn or self.by_timestep or self.compare is not None):
            raise EvaluationError(
                f"--engine {self.engine.engine} draws pictures. It cannot be used with --drawn, --by-timestep or "
                "--compare."
            )
