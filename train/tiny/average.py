"""Average the weights of an adapter before and after the reward.

    python train/tiny/average.py BEFORE AFTER OUTPUT --share 0.6

The reward raises the similarity and lowers the prompt accuracy; the average has most of the one and keeps the other
(Wortsman et al., arXiv 2109.01903).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from idgen import IdentityAdapter


def average(before: Path, after: Path, output: Path, share: float) -> None:
    """Write an adapter `share` of the way from one to the other."""
    adapter, other = (IdentityAdapter.from_pretrained(folder) for folder in (before, after))
    weights = other.state_dict()
    adapter.load_state_dict({name: weight.lerp(weights[name], share) for name, weight in adapter.state_dict().items()})
    adapter.save_pretrained(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.6, help="weight of the adapter after the reward")
    arguments = parser.parse_args()
    average(arguments.before, arguments.after, arguments.output, arguments.share)


if __name__ == "__main__":
    main()
