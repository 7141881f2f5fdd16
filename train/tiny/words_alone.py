"""Make `<id>` alone do what the adapter's tokens do: with new pseudo-words, and a UNet that reads them.

    python train/tiny/words_alone.py --config train/tiny/words_alone.toml --base BASE --id_adapter ADAPTER \\
        --train_data_dir SHARDS --output_dir OUT

Takes the options of `idgen train denoise`. Beside the adapter it writes `OUT/base`, the base with the trained UNet.
Words and UNet start as `recipe/words_of_tokens.py` computes them, in a minute or two. An ADAPTER that is the OUT of an
earlier run goes on, with its base; BASE stays the one whose predictions are learned.

Words and UNet learn the prediction of BASE with the adapter's tokens, wherever the tokens are there or the prompt
names the person; elsewhere they learn its prediction without them. That is less noisy than the photo, and there is
one for every pair of a picture and a person.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from recipe.with_base import BASE, DenoiserWithBase, copy_settings
from recipe.words_of_tokens import PLAIN, SUBJECT, words_of_tokens

from idgen import IdentityAdapter
from idgen.adapter import Fusion
from idgen.data.bank import IdentityBank
from idgen.losses import Weighted, WeightedTerms
from idgen.losses.term import Term
from idgen.pipelines.prompts import PLACEHOLDER
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.config import DenoisingConfig
from idgen.training.denoising_inputs import DenoisingInputs
from idgen.training.parsing import parse
from idgen.training.randomness import Generators, uniform
from idgen.training.run import train_denoising
from idgen.training.step import CONFIG

UNET = "unet"
RENAMED, SHOWN, STRANGER = 0.6, 0.5, 0.5
"""Shares of the prompts that become `PLAIN` if they do not name the person, of the samples with the adapter's tokens,
and of those with the identity of the sample before."""


class WordsDenoiser(DenoiserWithBase):
    """Trains the words and the UNet; arguments as of `IdentityDenoiser`.

    Args:
        start: Folder of a UNet that the training starts with; the base's own if not given.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter,
        losses: WeightedTerms,
        start: Path | None = None,
        **parts: Any,
    ) -> None:
        adapter.requires_grad_(False).to_words.requires_grad_(True)
        terms = WeightedTerms({"words": Term(squared_difference, 1.0)})
        super().__init__(base, adapter, terms, **parts)
        self.unet = base.unet.requires_grad_(True)
        self._given = [weight.detach().clone() for weight in self.unet.parameters()]
        if start is not None:
            self.unet.load_state_dict(UNet2DConditionModel.from_pretrained(start).state_dict())

    def draw_timesteps(self, count: int, random: Generators) -> torch.Tensor:
        """More of the noisier ones, in which it is decided who is drawn: with a density that rises from 0."""
        steps = self.base.parametrisation.num_train_timesteps
        return (uniform(count, random).sqrt() * steps).long().clamp(max=steps - 1)

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """The squared difference of the two predictions, inside `with step:`."""
        inputs = DenoisingInputs(self, batch, random)
        noisy, timesteps = inputs.noisy_latents, inputs.timesteps
        renamed, shown, stranger = (uniform(len(batch), random) < share for share in (RENAMED, SHOWN, STRANGER))
        prompts = [
            PLAIN if change and PLACEHOLDER not in prompt else prompt
            for prompt, change in zip(batch.prompts, renamed.tolist(), strict=True)
        ]
        named = torch.tensor([PLACEHOLDER in prompt for prompt in prompts])
        identity = self.encode(with_strangers(batch, stranger))
        with torch.no_grad(), self.as_given(), self.activate(batch, identity, tokens_in(shown | named)):
            text = self.base.encode([prompt.replace(PLACEHOLDER, SUBJECT) for prompt in prompts])
            given = self.predict(batch, noisy, timesteps, text)
        self.hold(self.activate(batch, identity, tokens_in(shown)))
        learned = self.predict(batch, noisy, timesteps, self.base.encode(prompts, identity))
        return self.losses({"learned": learned, "given": given})

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """The UNet is as before this training inside the `with`, which needs `torch.no_grad`."""
        weights = [*self.unet.parameters()]
        learned = [weight.data for weight in weights]
        for weight, given in zip(weights, self._given, strict=True):
            weight.data = given
        try:
            yield
        finally:
            for weight, data in zip(weights, learned, strict=True):
                weight.data = data


def squared_difference(learned: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """(batch,), the mean squared difference."""
    return (learned - given).square().flatten(1).mean(1)


def tokens_in(samples: torch.Tensor) -> Fusion:
    """The adapter's tokens in these samples alone, (batch,) booleans."""
    return Fusion(torch.ones(len(samples)), samples.float())


def with_strangers(batch: Batch, samples: torch.Tensor) -> Batch:
    """These samples, (batch,) booleans, have the identity of the sample before."""
    embeds = batch.id_embeds
    chosen = samples.to(embeds.device).view(-1, *[1] * (embeds.ndim - 1))
    return replace(batch, id_embeds=torch.where(chosen, embeds.roll(1, 0), embeds))


def write_start(config: DenoisingConfig, earlier: Path, start: Path) -> None:
    """Write the adapter and the UNet that the training starts with: those of an earlier run, or with new words."""
    torch.manual_seed(config.loop.seed)
    adapter = IdentityAdapter.from_pretrained(earlier)
    if (earlier / BASE / UNET).is_dir():
        unet = UNet2DConditionModel.from_pretrained(earlier / BASE, subfolder=UNET)
    else:
        base = BaseModel.open(config.base, torch.float32, torch.device("cpu"))
        bank = IdentityBank(config.train_data_dir)
        embeddings = F.normalize(torch.from_numpy(bank.embeddings[bank.starts]), dim=-1)
        adapter, unet = words_of_tokens(base, adapter, captions_of(config.train_data_dir), embeddings), base.unet
    unet.save_pretrained(start / UNET)
    adapter.save_pretrained(start)


def captions_of(shards: str) -> list[str]:
    """All captions of the training photos, each once."""
    files = sorted(Path(shards).glob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(f, columns=["caption"], filters=[("split", "=", "train")]) for f in files])
    return sorted({caption for caption in rows["caption"].to_pylist() if caption})


def main() -> None:
    config = parse("denoise", sys.argv[1:], "words_alone.py")
    start = config.output_dir / "start"
    if not (start / CONFIG).exists():  # it is written last
        write_start(config, Path(str(config.adapter.id_adapter)), start)
    started = replace(config, adapter=replace(config.adapter, id_adapter=str(start)))
    train_denoising(started, partial(WordsDenoiser, start=start / UNET))
    copy_settings(config.base, config.output_dir)


if __name__ == "__main__":
    main()
