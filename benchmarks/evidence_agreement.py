"""How well picture evidence agrees with occlusion, and why not better.

    python benchmarks/evidence_agreement.py --data DATA --output benchmarks/results/evidence-agreement.json

On rows of val with a picture, a caption and a predicted label; labels that are not predicted are left out. Squares of
1, 3 or 5 cells a side, one around each cell, are hidden by grey, by the picture's mean colour, or by a blurred copy.
Per predicted label, Spearman's rank correlation over the h x w places:

- `evidence`: of the evidence of a cell with the fall of the logit when the square around it is hidden. With 1 cell and
  grey this is what `mlic-export --data` measures, on other rows;
- `evidence of the square`: of the evidence of all cells of the square, which is what hiding it should take;
- `other fill`: of the fall by grey with the fall by another fill. Occlusion that does not agree with itself cannot
  agree with anything else.

`a grey cell changes` says where the change of a logit comes from when one cell becomes grey: its own evidence, that of
its neighbours in the square of 3, of other cells, of words, or the rest, each as a part of the sum of absolute changes.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import describe, markdown_table, model_option, output_option, write_json
from PIL import Image, ImageFilter

from mlic_runtime import MlicError, Predictor
from mlic_train.config import DataOptions
from mlic_train.data.splits import load_splits
from mlic_train.exporting.faithfulness import rank_correlation

_HIDDEN = {1: ("grey", "mean", "blur"), 3: ("grey", "mean", "blur"), 5: ("grey",)}  # sides in cells, and fills
_GREY = 128  # as mlic_runtime.predict.evidence
_BATCH = 16
_SEED = 0

Floats = npt.NDArray[np.float64]


@click.command()
@model_option
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Data with a val split.")
@click.option("--rows", default=25, show_default=True, help="Rows with a predicted label.")
@output_option
def main(model: str | None, data: Path, rows: int, output: Path | None) -> None:
    """Measure agreement with occlusion in several ways."""
    predictor = Predictor.load(model, precision="fp32", threads=1, cache=False)
    records = [each for each in load_splits(DataOptions(data)).val.records if each.image is not None and each.captions]
    order = np.random.default_rng(_SEED).permutation(len(records))
    found: dict[str, list[float]] = {}  # one number a row, the mean over its predicted labels
    labels = used = 0
    for index in order:
        if used == rows:
            break
        count = _measure(predictor, str(records[index].image), records[index].captions[0], found)
        used += count > 0
        labels += count
    summary = {
        name: {"mean": round(float(np.mean(values)), 3), "standard error": round(_error(values), 3)}
        for name, values in found.items()
    }
    click.echo(
        markdown_table(
            ["", "mean", "standard error"], [[name, *map(str, values.values())] for name, values in summary.items()]
        )
    )
    if output is not None:
        what = "agreement of picture evidence with occlusion, fp32; means over rows of means over predicted labels"
        write_json(output, {**describe(what), "rows": used, "labels": labels, "result": summary})


def _measure(predictor: Predictor, path: str, caption: str, found: dict[str, list[float]]) -> int:
    """Add one row's numbers; return how many labels it has."""
    prediction = predictor.predict(path, caption, evidence=True)
    evidence = prediction.evidence
    names = [label.name for label in predictor.manifest.labels]
    labels = [names.index(name) for name in prediction.labels]
    if evidence is None or evidence.pixels is None or not labels:
        return 0
    pixels, tokens = evidence.pixels, predictor._tokenise([caption])
    whole = predictor.session.explain(pixels[None], *tokens)
    maps = np.asarray(whole.picture[0, labels], dtype=np.float64)  # (labels, h, w)
    grid = maps.shape[1:]
    row: dict[str, list[float]] = {}
    falls: dict[tuple[str, int], Floats] = {}
    for side, fills in _HIDDEN.items():
        for fill in fills:
            copies = _hide(pixels, grid, side, fill)
            if (side, fill) == (1, "grey"):
                falls[fill, side] = _where(predictor, whole, copies, tokens, labels, row)
            else:
                logits = np.concatenate(
                    [
                        predictor.session.run(part, *(np.repeat(each, len(part), axis=0) for each in tokens))
                        for part in np.split(copies, range(_BATCH, len(copies), _BATCH))
                    ]
                )
                falls[fill, side] = (whole.logits[0, labels] - logits[:, labels]).T
    alone = predictor.session.explain(pixels[None], *predictor._tokenise([None]))
    for label in range(len(labels)):
        for (fill, side), fall in falls.items():
            square = _sums(maps[label], side)
            _add(row, f"evidence, {side} x {side}, {fill}", rank_correlation(maps[label].ravel(), fall[label]))
            if side > 1:
                _add(
                    row,
                    f"evidence of the square, {side} x {side}, {fill}",
                    rank_correlation(square.ravel(), fall[label]),
                )
            if fill != "grey":
                _add(
                    row,
                    f"other fill, {side} x {side}, {fill}",
                    rank_correlation(falls["grey", side][label], fall[label]),
                )
        _add(row, "standard deviation of the fall, 1 x 1, grey, logits", float(falls["grey", 1][label].std()))
        _add(row, "largest fall, 1 x 1, grey, logits", float(falls["grey", 1][label].max()))
        _add(row, "largest fall, 3 x 3, grey, logits", float(falls["grey", 3][label].max()))
        own = np.asarray(alone.picture[0, labels[label]], dtype=np.float64)
        _add(row, "evidence with a caption against without", rank_correlation(maps[label].ravel(), own.ravel()))
    for name, values in row.items():
        found.setdefault(name, []).append(float(np.mean(values)))
    return len(labels)


def _where(
    predictor: Predictor, whole: Any, copies: Any, tokens: Any, labels: list[int], row: dict[str, list[float]]
) -> Floats:
    """Return the falls (labels, h * w) when single cells are hidden; add where they come from."""
    parts = [
        predictor.session.explain(part, *(np.repeat(each, len(part), axis=0) for each in tokens))
        for part in np.split(copies, range(_BATCH, len(copies), _BATCH))
    ]
    pictures = np.concatenate([each.picture for each in parts])[:, labels]
    captions = np.concatenate([each.caption for each in parts])[:, labels]
    logits = np.concatenate([each.logits for each in parts])[:, labels]
    falls = whole.logits[0, labels] - logits  # (h * w, labels)
    changes = whole.picture[0, labels] - pictures  # (h * w, labels, h, w)
    words = (whole.caption[0, labels] - captions).sum(axis=-1)
    rest = falls - changes.sum(axis=(2, 3)) - words
    height, width = changes.shape[2:]
    for cell in range(len(falls)):
        y, x = divmod(cell, width)
        for label in range(len(labels)):
            own = abs(changes[cell, label, y, x])
            near = np.abs(changes[cell, label, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]).sum() - own
            far = np.abs(changes[cell, label]).sum() - own - near
            amounts = np.array([own, near, far, abs(words[cell, label]), abs(rest[cell, label])])
            names = ("its own evidence", "its neighbours'", "other cells'", "words'", "the rest")
            if amounts.sum() > 0:
                for name, part in zip(names, amounts / amounts.sum(), strict=True):
                    _add(row, f"a grey cell changes {name}", float(part))
    assert height * width == len(falls)
    return np.asarray(falls.T, dtype=np.float64)


def _hide(pixels: Any, grid: tuple[int, ...], side: int, fill: str) -> Any:
    """Return copies uint8 (h * w, H, W, 3), in each of which the square around one cell is hidden."""
    if fill == "blur":
        radius = pixels.shape[0] / grid[0]
        paint = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).filter(ImageFilter.GaussianBlur(radius)))
    else:
        colour = pixels.mean(axis=(0, 1)).round() if fill == "mean" else np.full(3, _GREY)
        paint = np.broadcast_to(colour.astype(np.uint8), pixels.shape)
    rows, columns = (
        np.linspace(0, size, parts + 1).astype(int) for size, parts in zip(pixels.shape, grid, strict=False)
    )
    copies = np.repeat(pixels[None], grid[0] * grid[1], axis=0)
    for cell, copy in enumerate(copies):
        y, x = divmod(cell, grid[1])
        part = (
            slice(rows[max(0, y - side // 2)], rows[min(grid[0], y + side // 2 + 1)]),
            slice(columns[max(0, x - side // 2)], columns[min(grid[1], x + side // 2 + 1)]),
        )
        copy[part] = paint[part]
    return copies


def _sums(values: Floats, side: int) -> Floats:
    """Return for each cell the sum over the square around it, as far as it lies in the picture."""
    padded = np.pad(values, side // 2)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, (side, side)).sum(axis=(2, 3)))


def _add(row: dict[str, list[float]], name: str, value: float) -> None:
    row.setdefault(name, []).append(value)


def _error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


if __name__ == "__main__":
    try:
        main()
    except MlicError as error:
        raise SystemExit(f"Error: {error}") from error
