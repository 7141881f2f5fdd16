"""`idgen train distil`: a configuration → a LoRA for few steps."""

from __future__ import annotations

import shlex
from pathlib import Path

from accelerate import Accelerator

from ...checkpoints.model_card import card_head, opening_code
from ...errors import TrainingError
from ...files import write_bytes
from ...tiny.usage import usage_of
from ..base import BaseModel
from ..encoders import RunEncoders
from ..loop import Loop
from ..open_shards import open_batches
from ..open_validation import make_validation
from ..opening import lock_folder, make_loop, open_run, run_loop
from ..shard_batches import ShardBatches
from ..summary import measured
from ..tracking import METRICS, read_rows
from ..trainable import UNetLoRA, check_encoder, frozen_adapter
from .config import DistilConfig
from .step import ConsistencyStep

_CARD = """\
# Few-step LoRA

For `{base}`{adapter}, by `idgen train distil`. {steps} steps without guidance draw a picture.

```python
{code}
```

| | |
| --- | --- |
{table}
"""


def train_distil(config: DistilConfig) -> int:
    """Distil until the end of the run or a signal.

    Returns:
        The number of updates so far; 0 after a dry run.

    Raises:
        TrainingError: The configuration is inconsistent, another run uses the folder, or the folder holds another run.
        DataError: The shards cannot be read.
        EncoderMismatchError: The adapter reads embeddings that the shards do not hold.
    """
    with lock_folder(config):
        accelerator, base = open_run(config)
        batches = open_batches(config, base, accelerator, RunEncoders.of(config))
        step = _step(config, base, batches)
        loop = _loop(config, base, step, batches, accelerator)
        step.done = lambda: loop.done
        done = run_loop(loop)
        accelerator.end_training()
        if done and accelerator.is_main_process:
            _write_card(config, done)
        return done


def closing(config: DistilConfig) -> list[str]:
    """Lines for the end of a run."""
    folder = config.output_dir
    adapter = ["--id-adapter", config.id_adapter] if config.id_adapter else []
    command = ["idgen", "generate", "a photo of a face", "--base", config.base, *adapter]
    return [
        f"'{folder}' holds a LoRA that draws in {config.draw_steps} steps with {config.base}.",
        *(f"{name}: {value}." for name, value in measured(read_rows(folder / METRICS)).items()),
        f"Next: {shlex.join([*command, '--lora', str(folder), '--photo', 'PHOTO'])}",
    ]


def _step(config: DistilConfig, base: BaseModel, batches: ShardBatches) -> ConsistencyStep:
    place = config.id_adapter or ("tiny" if config.base == "tiny" else None)
    adapter = None if place is None else frozen_adapter(place, base)
    if adapter is not None:
        check_encoder(adapter, batches.encoder)
    guidance = config.consistency.guidance_scale
    return ConsistencyStep(
        base,
        adapter,
        UNetLoRA(base.unet, config.lora_rank),
        config.consistency,
        guidance_scale=usage_of(config.base).guidance_scale if guidance is None else guidance,
        updates=config.loop.max_train_steps,
        draw_steps=config.draw_steps,
    )


def _loop(
    config: DistilConfig, base: BaseModel, step: ConsistencyStep, batches: ShardBatches, accelerator: Accelerator
) -> Loop:
    base.pipeline.scheduler = step.few_step_scheduler()  # of the validation's pictures
    drawing = {"steps": config.draw_steps, "guidance_scale": 1.0}
    validate, _ = make_validation(config, base, step.adapter, accelerator, **drawing)
    data = {"train_data_dir.photos": batches.key()}
    return make_loop(config, step, batches, base, accelerator, data=data, validate=validate)


def _write_card(config: DistilConfig, updates: int) -> None:
    place = config.output_dir.name
    code = [
        "from diffusers import LCMScheduler",
        *opening_code(config.base),
        f'pipe.load_lora_weights("{place}")',
        f'pipe.scheduler = LCMScheduler.from_pretrained("{place}", subfolder="scheduler")',
        f'image = pipe("a photo of a face", num_inference_steps={config.draw_steps}, guidance_scale=1).images[0]',
    ]
    rows = {
        "method": config.consistency.method,
        "rank": str(config.lora_rank),
        "updates": f"{updates} of {config.loop.train_batch_size} samples per process",
        **measured(read_rows(config.output_dir / METRICS)),
    }
    card = card_head("lora", "lcm", "text-to-image") + _CARD.format(
        base=config.base,
        adapter=f" with the identity adapter `{Path(config.id_adapter).name}`" if config.id_adapter else "",
        steps=config.draw_steps,
        code="\n".join(code),
        table="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
    )
    write_bytes(config.output_dir / "README.md", card.encode(), TrainingError)
