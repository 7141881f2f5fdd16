"""Write the list of people that no training sees. Run once; the list is kept.

    python train/tiny/split.py > train/splits/lfw_test.txt

People with 2 to 10 photos are what identity is measured on, so 20 % of them are held out, and 6 % of people with one
photo. People with more stay in training: they would take hundreds of photos away. A hash of the name says who it is.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter

from recipe.config import shared_folder

HEADER = """\
# People of LFW who are in no training set of this project (one name a line).
# Made by train/tiny/split.py: sha256 of the name, its first 8 hex digits modulo 100, is below 20 for people with
# 2 to 10 photos and below 6 for people with one; people with more are never held out."""


def held_out(name: str, photos: int) -> bool:
    percent = 6 if photos == 1 else 20 if photos <= 10 else 0
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100 < percent


def main() -> None:
    count: Counter[str] = Counter()
    for path in sorted((shared_folder() / "data" / "lfw").glob("*.tar")):
        with tarfile.open(path) as tar:
            count.update(member.name.rpartition("/")[0] for member in tar if member.isfile())
    names = sorted(name for name, photos in count.items() if held_out(name, photos))
    print(HEADER, *names, sep="\n")


if __name__ == "__main__":
    main()
