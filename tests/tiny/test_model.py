"""The model that ships with the package opens and draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging
from transformers import CLIPTokenizer

from idgen.data.framing import FRAMING
from idgen.evaluation.prompts import PROMPT_SETS
from idgen.files import read_json
from idgen.tiny import TINY_PATH, load_tiny_base
from idgen.tiny.usage import usage_of

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

pytestmark = pytest.mark.skipif(
    not (TINY_PATH / "model_index.json").is_file(), reason="idgen-tiny has not been trained in this checkout"
)


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = load_tiny_base()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: StableDiffusionPipeline, prompt: str, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    made: Any = pipe(prompt, num_inference_steps=8, guidance_scale=3, generator=generator, output_type="np")
    return made.images[0]


def test_opening_it_prints_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    opened = load_tiny_base()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    parts = (opened.unet, opened.vae, opened.text_encoder)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float32}


def test_its_usage_names_the_words_that_it_knows() -> None:
    usage = usage_of("tiny")
    tokenizer = CLIPTokenizer.from_pretrained(TINY_PATH / "tokenizer")
    tokens = [tokenizer(word, add_special_tokens=False).input_ids for word in usage.words]
    assert [text.strip() for text in tokenizer.batch_decode(tokens)] == list(usage.words)
    assert not [word for prompt in PROMPT_SETS["tiny"] for word in usage.unknown_words(prompt.text)]
    assert usage.unknown_words("A <id> photo, on the MOON; moon light") == ["on", "moon"]
    assert read_json(TINY_PATH / FRAMING)["resolution"] == usage.resolution
    assert usage_of("no/base").unknown_words("moon") == []


def test_draws_a_finite_picture(pipe):
    picture = draw(pipe, "a photo of a face")
    assert picture.shape == (128, 128, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.1


def test_a_seed_repeats_its_picture(pipe):
    first, second, other = (draw(pipe, "a photo of a face", seed) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_prompts_steer(pipe):
    """A black and white photo has no colour, a photo in warm light is redder than one in cold light."""
    grey, warm, cold = (
        draw(pipe, prompt)
        for prompt in (
            "a black and white photo of a face",
            "a photo of a face in warm light",
            "a photo of a face in cold light",
        )
    )
    assert np.ptp(grey, axis=2).mean() < 0.05
    assert (warm[..., 0] - warm[..., 2]).mean() > 0.1 > (cold[..., 0] - cold[..., 2]).mean()


def test_has_cross_attention_for_adapters(pipe):
    layers = [name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")]
    assert len(layers) >= 6


def test_is_small():
    weights = list(TINY_PATH.glob("**/*.safetensors"))
    assert {file.parent.name for file in weights} == {"vae", "unet", "text_encoder"}
    assert sum(file.stat().st_size for file in TINY_PATH.glob("**/*")) <= 40e6
