"""Write the list of people that no training sees. Run once; the list is kept.

    python train/tiny/split.py > train/splits/lfw_test.txt

A hash of the name says who it is. People of the other sets have no list: `recipe/held_out.py` asks the same hash.
"""

from __future__ import annotations

import tarfile
from collections import Counter

from recipe.config import shared_folder
from recipe.held_out import held_out

HEADER = """\
# People of LFW who are in no training set of this project (one name a line).
# Made by train/tiny/split.py: sha256 of the name, its first 8 hex digits modulo 100, is below 20 for people with
# 2 to 10 photos and below 6 for people with one; people with more are never held out."""


def main() -> None:
    count: Counter[str] = Counter()
    for path in sorted((shared_folder() / "data" / "lfw").glob("*.tar")):
        with tarfile.open(path) as tar:
            count.update(member.name.rpartition("/")[0] for member in tar if member.isfile())
    names = sorted(name for name, photos in count.items() if held_out(name, photos))
    print(HEADER, *names, sep="\n")


if __name__ == "__main__":
    main()
