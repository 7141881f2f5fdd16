"""Draw the sheet of invented.md: python docs/invented.py docs/images/ SET

SET is a folder of `idgen generate --random 24 --pictures 4 --set SET`, or of more people.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from PIL import Image

SIDE, GAP, COLUMNS = 96, 8, 3


def main(
    output: tyro.conf.Positional[Path], made: tyro.conf.Positional[Path], people: int = 24, pictures: int = 4
) -> None:
    """Write invented.jpg: the first pictures of the first people, without a choice.

    Args:
        output: Folder for the sheet.
        made: The set.
        people: Number of people.
        pictures: Pictures of each person.
    """
    width, rows = pictures * SIDE + GAP, -(-people // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width - GAP, rows * (SIDE + GAP) - GAP), "white")
    for number, folder in enumerate(sorted((made / "pictures").iterdir())[:people]):
        row, column = divmod(number, COLUMNS)
        for i, file in enumerate(sorted(folder.glob("*.png"))[:pictures]):
            picture = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(picture, (column * width + i * SIDE, row * (SIDE + GAP)))
    sheet.save(output / "invented.jpg", quality=85)


if __name__ == "__main__":
    tyro.cli(main)
