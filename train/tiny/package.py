"""Write a trained base, its adapter and its IdentityNet to the folders of the package.

python train/tiny/package.py train/tiny/tiny.toml BASE ADAPTER IDENTITY_NET
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.config import load_config
from recipe.package import make_package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("settings", "base", "adapter", "identity_net"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    output = load_config(arguments.settings).path("output")
    make_package(arguments.base, arguments.adapter, arguments.identity_net, output)


if __name__ == "__main__":
    main()
