"""Makes a small data set to try MLIC with: crops of the three photographs beside this file, alone or two side by side.

    python examples/make_data.py my-data

writes my-data/rows.csv (image, caption, labels) and my-data/images/. Every second row has a caption. It needs only
Pillow.
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image

PHOTOS = {"astronaut": "astronaut.jpg", "cat": "cat.png", "coffee": "coffee.jpg"}
CAPTIONS = {
    "astronaut": ("an astronaut smiles", "a woman in a space suit"),
    "cat": ("a tabby looks up", "a close look at a cat"),
    "coffee": ("a cup of coffee", "coffee on a wooden table"),
}
SIDE = 192  # pixels of a crop


def crop(photo: Image.Image, random_numbers: random.Random) -> Image.Image:
    """Return a square part of a photograph, at least two thirds of its height, as SIDE x SIDE pixels."""
    side = random_numbers.randint(2 * photo.height // 3, photo.height)
    left, top = random_numbers.randint(0, photo.width - side), random_numbers.randint(0, photo.height - side)
    return photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


def make(folder: Path, rows: int) -> None:
    """Write the data set into a new folder."""
    (folder / "images").mkdir(parents=True)
    random_numbers = random.Random(0)
    photos = {label: Image.open(Path(__file__).parent / file).convert("RGB") for label, file in PHOTOS.items()}
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "caption", "labels"))
        for number in range(rows):
            labels = random_numbers.sample(sorted(photos), 1 + number % 2)
            picture = Image.new("RGB", (SIDE * len(labels), SIDE))
            for place, label in enumerate(labels):
                picture.paste(crop(photos[label], random_numbers), (SIDE * place, 0))
            name = f"{number:04d}.jpg"
            picture.save(folder / "images" / name, quality=90)
            words = " and ".join(random_numbers.choice(CAPTIONS[label]) for label in labels)
            table.writerow((name, words if number % 4 < 2 else "", ";".join(labels)))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder that is not there yet")
    parser.add_argument("--rows", type=int, default=120, help="how many rows (default: 120)")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} exists; expected a new folder")
    make(given.folder, given.rows)


if __name__ == "__main__":
    main()
