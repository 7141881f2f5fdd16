"""For `DiffusionPipeline.from_pretrained(base, custom_pipeline="pipelines/stable_diffusion", …)`.

diffusers asks for `trust_remote_code=True` beside it.
"""

from idgen.pipelines import StableDiffusionPipeline

__all__ = ["StableDiffusionPipeline"]
