"""Make a base read words as an earlier one did: words that few captions have, and that a training of the UNet lost.

    python train/tiny/read_again.py BASE EARLIER ADAPTER OUTPUT --words "red background" --instead "blue background"

A UNet reads text by linear maps, the keys and values of its cross-attention. A regression makes these read what the
words add to the text encoder's states as those of the earlier base did. Other captions, and the adapter's words for
people, are read as before, as far as they lie in other directions. No photos are needed: people are drawn from the
space of the face encoder. Both bases must have the same text encoder. Add the words to `usage.json` in OUTPUT, so that
`idgen generate` does not warn of them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from recipe.attributes import WORDS
from recipe.words_of_tokens import SUBJECT, Read, Texts, addition

from idgen import IdentityAdapter
from idgen.evaluation.prompts import PROMPT_SETS
from idgen.faces.space import FaceSpace
from idgen.pipelines.prompts import PLACEHOLDER
from idgen.training.base import BaseModel

COUNT = 400
"""Captions of each kind."""
KEPT = 10.0
"""Weight of what is read as before, beside what is read again."""


@torch.no_grad()
def read_again(
    base: BaseModel, earlier: UNet2DConditionModel, adapter: IdentityAdapter, words: Sequence[str], instead: str
) -> None:
    """Change the keys and values of the base's UNet.

    Args:
        base: With one text encoder.
        earlier: A UNet of the same size that knows the words.
        adapter: Its words for people stay as they are.
        words: What is read again, at the end of a caption.
        instead: The words' place in captions without them; as long as each of the words.
    """
    random = torch.Generator().manual_seed(0)
    others = [each for attribute in WORDS.values() for each in attribute if each and each not in words]
    plain = [_caption(others, random) for _ in range(COUNT)]
    named = [caption.replace(SUBJECT, PLACEHOLDER) for caption in plain]
    space = FaceSpace.for_encoder(adapter.config["encoder"], adapter.config["embedding_dim"])
    people = F.normalize(space.draw_many(COUNT, random), dim=-1)

    def states(captions: Sequence[str], identity: Any = None) -> torch.Tensor:
        return base.encode(list(captions), identity)["encoder_hidden_states"]

    texts = Texts(torch.cat([states(plain), states(named, adapter.encode(people))]))
    texts.moment *= KEPT
    usual = states([f"{caption}, {instead}" for caption in plain])
    added = torch.cat([states([f"{caption}, {word}" for caption in plain]) - usual for word in words]).flatten(0, 1)
    for path, layer in base.unet.named_modules():
        if isinstance(layer, Attention) and path.endswith("attn2"):
            known: Any = earlier.get_submodule(path)
            for own, before in ((layer.to_k, known.to_k), (layer.to_v, known.to_v)):
                weight: Any = own.weight  # pyright: ignore[reportOptionalMemberAccess]
                weight.add_(addition(weight, before.weight, Read(added, added), texts))


def _caption(others: Sequence[str], random: torch.Generator) -> str:
    """One of the nine styles, and up to two attributes."""
    chosen = torch.randperm(len(others), generator=random)[: int(torch.randint(3, (1,), generator=random))]
    style = PROMPT_SETS["tiny"][int(torch.randint(len(PROMPT_SETS["tiny"]), (1,), generator=random))].text
    return ", ".join([style, *(others[int(i)] for i in chosen)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "earlier", "adapter", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--words", nargs="+", required=True, help="read again as by EARLIER")
    parser.add_argument("--instead", required=True, help="what stands in their place in other captions")
    arguments = parser.parse_args()
    base = BaseModel.open(str(arguments.base), torch.float32, torch.device("cpu"))
    earlier: Any = UNet2DConditionModel.from_pretrained(arguments.earlier, subfolder="unet", torch_dtype=torch.float32)
    read_again(base, earlier, IdentityAdapter.from_pretrained(arguments.adapter), arguments.words, arguments.instead)
    shutil.copytree(arguments.base, arguments.output)
    base.unet.half().save_pretrained(arguments.output / "unet")


if __name__ == "__main__":
    main()
