"""What decoding JPEGs at a reduced scale saves and changes: `read_pixels` against Pillow's full decode and resize.

The speed is measured on a photograph of examples/, enlarged to 4000x3000 with noise, and on the same at 640x480, both
ways in turns. With --data the label decisions of a model are compared over val, from the pictures as they are and from
the same enlarged to both sizes; the data must have pictures. Usage:
python benchmarks/decode.py [--data FOLDER] [--model PACKAGE] [--rounds N] [--output FILE]
"""

import io
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mlic_runtime import Predictor
from mlic_runtime.base.machine import machine_facts
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.source.members import PictureFile
from mlic_train.data.splits import load_splits

Pixels = npt.NDArray[np.uint8]

_PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "coffee.jpg"
_SIZES = {"4000x3000": (4000, 3000), "640x480": (640, 480)}
_NOISE = 6.0  # standard deviation, of 255 levels: that of a phone's sensor in dim light
_TILE = 512
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def enlarge(image: Image.Image, size: tuple[int, int]) -> bytes:
    """A JPEG of quality 90 with noise in every pixel, so that decoding it has the work that a photograph makes."""
    noise = np.random.default_rng(0).normal(0, _NOISE, (_TILE, _TILE, 3)).round().astype(np.int16)
    noise = np.tile(noise, (-(-size[1] // _TILE), -(-size[0] // _TILE), 1))[: size[1], : size[0]]
    pixels = noise + np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def full_decode(data: bytes, spec: ImageSpec) -> Pixels:
    """What Pillow does with a picture unless it is told otherwise: decode all of it, then resize."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize((spec.width, spec.height), _RESAMPLING[spec.interpolation]))


def measure(data: bytes, spec: ImageSpec, rounds: int) -> dict[str, Any]:
    """Milliseconds of both ways (medians), their ratio in each pair of turns, and how far the pixels differ."""
    ways: dict[str, Callable[[], Pixels]] = {
        "full_decode": lambda: full_decode(data, spec),
        "read_pixels": lambda: read_pixels(data, spec),
    }
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(-1, rounds):  # the first warms up
        for way, decode in ways.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            decode()
            if turn >= 0:
                cpu[way].append(1e3 * (time.process_time() - start_cpu))
                wall[way].append(1e3 * (time.perf_counter() - start))
    difference = np.abs(full_decode(data, spec).astype(int) - read_pixels(data, spec))
    found: dict[str, Any] = {"bytes": len(data)}
    for name, times in (("cpu", cpu), ("wall", wall)):
        ratios = [a / b for a, b in zip(times["full_decode"], times["read_pixels"], strict=True)]
        low, *_, high = statistics.quantiles(ratios, n=10)
        found[f"{name}_ms"] = {way: round(statistics.median(values), 2) for way, values in times.items()}
        found[f"{name}_ratio"] = round(statistics.median(ratios), 2)
        found[f"{name}_ratio_p10_p90"] = [round(low, 2), round(high, 2)]
    return {**found, "mean_difference": round(float(difference.mean()), 3), "max_difference": int(difference.max())}


def as_it_is(image: PictureFile) -> bytes:
    """The bytes of the file."""
    return image.read_bytes()


def enlarged(image: PictureFile, size: tuple[int, int]) -> bytes:
    """The picture at another size, its aspect ratio with it, and with noise."""
    with Image.open(io.BytesIO(image.read_bytes())) as opened:
        return enlarge(opened, size)


def compare(
    records: Sequence[Record], predictors: Sequence[Predictor], content: Callable[[PictureFile], bytes]
) -> dict[str, Any]:
    """How many decisions (a row and a label each) both ways agree on, with and without the caption."""
    spec = predictors[0].manifest.image
    pairs: list[tuple[Pixels, Pixels]] = []
    with click.progressbar(records, file=sys.stderr) as shown:
        for record in shown:
            if record.image is not None:
                data = content(record.image)
                pairs.append((full_decode(data, spec), read_pixels(data, spec)))
    captions = [record.captions[0] if record.captions else None for record in records if record.image is not None]
    found: dict[str, Any] = {
        "rows": len(pairs),
        "rows_with_equal_pixels": sum(bool((full == read).all()) for full, read in pairs),
        "mean_difference": round(float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs])), 3),
    }
    for predictor in predictors:
        for mode, texts in (("picture and caption", captions), ("picture only", [None] * len(pairs))):
            # An array of the model's size passes through as it is.
            full, read = (predictor.predict_many([pair[way] for pair in pairs], texts) for way in (0, 1))
            changed = [len(set(a.labels) ^ set(b.labels)) for a, b in zip(full, read, strict=True)]
            decisions = len(pairs) * len(predictor.labels)
            found[f"{predictor.precision}, {mode}"] = {
                "decisions": decisions,
                "changed": sum(changed),
                "equal_percent": round(100 * (1 - sum(changed) / decisions), 3),
                "rows_with_a_change": sum(map(bool, changed)),
            }
    return found


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for mlic-train.")
@click.option("--model", help="A model package.  [default: the released one]")
@click.option("--precision", "precisions", multiple=True, default=["fp32", "int8"], show_default=True)
@click.option("--rows", type=click.IntRange(1), help="Only the first rows of val.  [default: all]")
@click.option("--rounds", type=click.IntRange(2), default=15, show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
def main(
    data: Path | None,
    model: str | None,
    precisions: tuple[str, ...],
    rows: int | None,
    rounds: int,
    output: Path | None,
) -> None:
    """Measure read_pixels against a full decode."""
    predictors = [Predictor.load(model, precision=precision) for precision in precisions]
    manifest = predictors[0].manifest
    if manifest.image.resize != "stretch":
        raise click.ClickException(f"{manifest.title} crops its pictures; the full decode here stretches them")
    result: dict[str, Any] = {
        "what": "read_pixels against Pillow's full decode and resize, from the bytes of a JPEG to the model's pixels",
        "command": shlex.join(["python", "benchmarks/decode.py", *_without_data(sys.argv[1:])]),
        "model": manifest.title,
        "size": [manifest.image.width, manifest.image.height],
        "rounds": rounds,
        "machine": machine_facts(),
        "versions": {name: version(name) for name in ("onnxruntime", "numpy", "pillow")},
    }
    with Image.open(_PHOTOGRAPH) as photograph:
        pictures = {name: enlarge(photograph, size) for name, size in _SIZES.items()}
    result["speed"] = {name: measure(content, manifest.image, rounds) for name, content in pictures.items()}
    for name, found in result["speed"].items():
        low, high = found["cpu_ratio_p10_p90"]
        spread = f"p10 {low}, p90 {high}; {found['cpu_ms']} ms"
        click.echo(f"{name}: {found['cpu_ratio']} times as fast in CPU time ({spread})")
    if data is not None:
        records = load_splits(DataOptions(folder=data)).val.records[:rows]
        result["decisions"] = {"val as it is": compare(records, predictors, as_it_is)}
        for name, size in _SIZES.items():
            found = compare(records, predictors, partial(enlarged, size=size))
            result["decisions"][f"val enlarged to {name}"] = found
        click.echo(json.dumps(result["decisions"], indent=2))
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _without_data(arguments: list[str]) -> list[str]:
    """The arguments with DATA in the place of the folder, which is nobody else's."""
    return [
        "DATA" if index and arguments[index - 1] == "--data" else argument for index, argument in enumerate(arguments)
    ]


if __name__ == "__main__":
    main()
