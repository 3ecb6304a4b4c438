"""Measures what decoding JPEGs at a reduced scale saves and changes, against Pillow's full decode and resize, in turns.

    python benchmarks/decode.py --data DATA --output benchmarks/results/decode.json

The speed is measured on a photograph of examples/, enlarged with noise to 4000x3000 and to 640x480. With --data it also
compares the label decisions of a model over val: from the pictures as they are, and enlarged to both sizes.
"""

import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import ROOT, describe, model_option, output_option, rounds_option, write_json
from PIL import Image, ImageOps

from mlic_runtime import Predictor
from mlic_runtime.annotations.source.members import PictureFile
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.config import DataOptions
from mlic_train.data import Record
from mlic_train.data.splits import load_splits

Pixels = npt.NDArray[np.uint8]

_PHOTOGRAPH = ROOT / "examples" / "coffee.jpg"
_SIZES = {"4000x3000": (4000, 3000), "640x480": (640, 480)}
_NOISE = 6.0  # standard deviation in levels of 255, as of a phone's sensor in dim light
_TILE = 512
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def enlarge(image: Image.Image, size: tuple[int, int]) -> bytes:
    """Return a JPEG of quality 90 with noise in every pixel, so that it takes as long to decode as a photograph."""
    noise = np.random.default_rng(0).normal(0, _NOISE, (_TILE, _TILE, 3)).round().astype(np.int16)
    noise = np.tile(noise, (-(-size[1] // _TILE), -(-size[0] // _TILE), 1))[: size[1], : size[0]]
    pixels = noise + np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def full_decode(data: bytes, spec: ImageSpec) -> Pixels:
    """Decode the whole picture, then resize it, as Pillow does by default."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize((spec.width, spec.height), _RESAMPLING[spec.interpolation]))


def measure(data: bytes, spec: ImageSpec, rounds: int) -> dict[str, Any]:
    """Return milliseconds of both ways (medians), the ratio of each pair of turns, and the difference of pixels."""
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
    result: dict[str, Any] = {"bytes": len(data)}
    for name, times in (("cpu", cpu), ("wall", wall)):
        ratios = [a / b for a, b in zip(times["full_decode"], times["read_pixels"], strict=True)]
        low, *_, high = statistics.quantiles(ratios, n=10)
        result[f"{name}_ms"] = {way: round(statistics.median(values), 2) for way, values in times.items()}
        result[f"{name}_ratio"] = round(statistics.median(ratios), 2)
        result[f"{name}_ratio_p10_p90"] = [round(low, 2), round(high, 2)]
    return {**result, "mean_difference": round(float(difference.mean()), 3), "max_difference": int(difference.max())}


def as_it_is(image: PictureFile) -> bytes:
    """Return the bytes of the file."""
    return image.read_bytes()


def enlarged(image: PictureFile, size: tuple[int, int]) -> bytes:
    """Return the picture with noise, stretched to another size."""
    with Image.open(io.BytesIO(image.read_bytes())) as opened:
        return enlarge(opened, size)


def compare(
    records: Sequence[Record], predictors: Sequence[Predictor], content: Callable[[PictureFile], bytes]
) -> dict[str, Any]:
    """Count the decisions (one for each row and label) that differ between both ways, with and without captions."""
    spec = predictors[0].manifest.image
    pairs: list[tuple[Pixels, Pixels]] = []
    with click.progressbar(records, file=sys.stderr) as shown:
        for record in shown:
            if record.image is not None:
                data = content(record.image)
                pairs.append((full_decode(data, spec), read_pixels(data, spec)))
    captions = [record.captions[0] if record.captions else None for record in records if record.image is not None]
    result: dict[str, Any] = {
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
            result[f"{predictor.precision}, {mode}"] = {
                "decisions": decisions,
                "changed": sum(changed),
                "equal_percent": round(100 * (1 - sum(changed) / decisions), 3),
                "rows_with_a_change": sum(map(bool, changed)),
            }
    return result


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for mlic-train.")
@model_option
@click.option("--precision", "precisions", multiple=True, default=["fp32", "int8"], show_default=True)
@click.option("--rows", type=click.IntRange(1), help="Only the first rows of val.  [default: all]")
@rounds_option(15, at_least=2)
@output_option
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
    result = describe(
        "read_pixels against Pillow's full decode and resize, from the bytes of a JPEG to the model's pixels"
    )
    result |= {"model": manifest.title, "size": [manifest.image.width, manifest.image.height], "rounds": rounds}
    with Image.open(_PHOTOGRAPH) as photograph:
        pictures = {name: enlarge(photograph, size) for name, size in _SIZES.items()}
    result["speed"] = {name: measure(content, manifest.image, rounds) for name, content in pictures.items()}
    for name, speed in result["speed"].items():
        low, high = speed["cpu_ratio_p10_p90"]
        spread = f"p10 {low}, p90 {high}; {speed['cpu_ms']} ms"
        click.echo(f"{name}: {speed['cpu_ratio']} times as fast in CPU time ({spread})")
    if data is not None:
        records = load_splits(DataOptions(folder=data)).val.records[:rows]
        result["decisions"] = {"val as it is": compare(records, predictors, as_it_is)}
        for name, size in _SIZES.items():
            changes = compare(records, predictors, partial(enlarged, size=size))
            result["decisions"][f"val enlarged to {name}"] = changes
        click.echo(json.dumps(result["decisions"], indent=2))
    write_json(output, result)


if __name__ == "__main__":
    main()
