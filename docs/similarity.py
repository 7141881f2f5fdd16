"""Draw the two histograms of prepare.md from the manifest of a set.

python docs/similarity.py shards/ docs/images/similarity.png
"""

from __future__ import annotations

from pathlib import Path

import tyro

from idgen.data.manifest import Manifest
from idgen.data.set_report import similarity_figure


def main(shards: tyro.conf.Positional[str], picture: tyro.conf.Positional[Path]) -> None:
    """Draw the cosines of one person's faces and of different people's faces.

    Args:
        shards: Folder of a prepared set.
        picture: File of the diagram.
    """
    figure = similarity_figure(Manifest.open(shards))
    if figure is None:
        raise SystemExit(f"'{shards}' has no pair of faces to compare.")
    figure.set_size_inches(6.4, 3.2)
    figure.axes[0].set_xlabel("cosine of two faces")
    figure.savefig(picture, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    tyro.cli(main)
