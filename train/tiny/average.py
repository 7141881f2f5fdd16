"""Average the weights of an adapter before and after the reward.

    python train/tiny/average.py BEFORE AFTER OUTPUT --share 0.75 --lora-share 0.25

The reward raises the similarity and lowers the prompt accuracy; the average has most of the one and keeps the other
(Wortsman et al., arXiv 2109.01903).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from idgen import IdentityAdapter


def average(before: Path, after: Path, output: Path, share: float, lora_share: float | None = None) -> None:
    """Write an adapter `share` of the way from one to the other, and its LoRA `lora_share` of the way."""
    of_lora = share if lora_share is None else lora_share
    adapter, other = (IdentityAdapter.from_pretrained(folder) for folder in (before, after))
    weights = other.state_dict()
    shares = {name: of_lora if name.startswith("loras.") else share for name in weights}
    mixed = {name: weight.lerp(weights[name], shares[name]) for name, weight in adapter.state_dict().items()}
    adapter.load_state_dict(mixed)
    adapter.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.6, help="weight of the adapter after the reward")
    parser.add_argument("--lora-share", type=float, help="the same for the LoRA; by default, that share")
    arguments = parser.parse_args()
    average(arguments.before, arguments.after, arguments.output, arguments.share, arguments.lora_share)


if __name__ == "__main__":
    main()
