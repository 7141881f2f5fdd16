"""For `DiffusionPipeline.from_pretrained(base, custom_pipeline="pipelines/stable_diffusion_xl", …)`.

diffusers asks for `trust_remote_code=True` beside it.
"""

from idgen.pipelines import StableDiffusionXLPipeline

__all__ = ["StableDiffusionXLPipeline"]
