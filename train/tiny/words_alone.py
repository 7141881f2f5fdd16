"""Train new pseudo-words of an adapter until `<id>` alone does what the adapter's tokens do.

    python train/tiny/words_alone.py --config train/tiny/words_alone.toml --id_adapter ADAPTER \\
        --train_data_dir SHARDS --output_dir OUT

Takes the options of `idgen train denoise`. The words start as words of the text encoder, with a standardised input.
They learn the UNet's prediction for the same prompt with the tokens and without the words, which is less noisy than
the photo. Nothing else of the adapter is trained.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from recipe.new_words import with_new_words

from idgen import IdentityAdapter
from idgen.data.bank import IdentityBank
from idgen.losses import Weighted, WeightedTerms
from idgen.losses.term import Term
from idgen.pipelines.prompts import PLACEHOLDER
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.denoising_inputs import DenoisingInputs
from idgen.training.parsing import parse
from idgen.training.randomness import Generators
from idgen.training.run import train_denoising
from idgen.training.step import CONFIG

SUBJECT = "a face"
"""Stands for the person in the prompt of the prediction that the words learn."""
PLAIN = f"a photo of {PLACEHOLDER}"
"""Prompt of samples whose caption does not name the person."""


class WordsDenoiser(IdentityDenoiser):
    """Trains the words alone; arguments as of `IdentityDenoiser`."""

    def __init__(self, base: BaseModel, adapter: IdentityAdapter, losses: WeightedTerms, **parts: Any) -> None:
        adapter.requires_grad_(False).to_words.requires_grad_(True)
        terms = WeightedTerms({"words": Term(squared_difference, 1.0)})
        super().__init__(base, adapter, terms, **parts)

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """The squared difference of the two predictions, inside `with step:`."""
        named = tuple(prompt if PLACEHOLDER in prompt else PLAIN for prompt in batch.prompts)
        identity, inputs = self.encode(batch), DenoisingInputs(self, batch, random)
        noisy, timesteps = inputs.noisy_latents, inputs.timesteps
        with torch.no_grad(), self.activate(batch, identity):
            text = self.base.encode([prompt.replace(PLACEHOLDER, SUBJECT) for prompt in named])
            by_tokens = self.predict(batch, noisy, timesteps, text)
        by_words = self.predict(batch, noisy, timesteps, self.base.encode(named, identity))
        return self.losses({"by_words": by_words, "by_tokens": by_tokens})


def squared_difference(by_words: torch.Tensor, by_tokens: torch.Tensor) -> torch.Tensor:
    """(batch,), the mean squared difference."""
    return (by_words - by_tokens).square().flatten(1).mean(1)


def main() -> None:
    config = parse("denoise", sys.argv[1:], "words_alone.py")
    start = config.output_dir / "start"
    if not (start / CONFIG).exists():
        torch.manual_seed(config.loop.seed)
        adapter = IdentityAdapter.from_pretrained(str(config.adapter.id_adapter))
        embeddings = torch.from_numpy(IdentityBank(config.train_data_dir).embeddings[:10_000].copy())
        base = BaseModel.open(config.base, torch.float32, torch.device("cpu"))
        with_new_words(adapter, base.text_encoders, F.normalize(embeddings, dim=-1)).save_pretrained(start)
    train_denoising(replace(config, adapter=replace(config.adapter, id_adapter=str(start))), WordsDenoiser)


if __name__ == "__main__":
    main()
