"""Write a trained base with the autoencoder and the resolution of the settings.

    python train/tiny/assemble.py train/tiny/tiny128.toml MODEL start/base --identity-net start/adapter

MODEL is the model of half the resolution that tiny128.toml continues: it gets another decoder. With --identity-net,
its IdentityNet is also written, for pictures of the new size; training continues it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.config import load_config
from recipe.half_size_net import double_net
from recipe.package import assemble

from idgen.convert import NET
from idgen.data.framing import aligned_framing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("settings", "base", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--identity-net", type=Path, help="folder of the adapter that gets it")
    arguments = parser.parse_args()
    settings = load_config(arguments.settings)
    assemble(settings, arguments.base, arguments.output)
    if arguments.identity_net and settings.start:
        framing = aligned_framing(str(arguments.output))
        assert framing is not None
        missed = double_net(settings.start.with_name("adapter") / NET, framing, arguments.identity_net / NET)
        print(f"The new network of the landmarks misses {missed:.1%} of the variance of the old one's features.")


if __name__ == "__main__":
    main()
