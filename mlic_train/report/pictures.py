"""How large pictures are, and what they look like: sizes, and a few samples of every label."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.picture.decode import load_image
from mlic_train.data.picture_info import PictureInfo

from .duplicates import Row
from .page import Picture, Plot, Section, side_by_side, thumbnail
from .plots import SPLIT_COLOURS, SPLIT_WIDTHS, draw_histograms, legend_above, plot
from .text import share, shorten

_SAMPLES = 240  # sample pictures in all, so that the file stays small with many labels too
_PER_LABEL = (2, 5)  # at least and at most; five stand side by side
_SIDE = 160  # pixels of a sample picture
_USUAL = 224  # pixels of a model's input
_SEED = 0


def size_section(pictures: Mapping[str, Sequence[PictureInfo]]) -> Section:
    """Return sizes and aspect ratios of the pictures of every split that has any."""
    every = [picture for of_split in pictures.values() for picture in of_split]
    columns = {name: _size_facts(of_split) for name, of_split in [*pictures.items(), ("all", every)]}
    return Section(
        "Picture sizes",
        "Made square, a picture that is more than twice as long as wide is distorted or cut; enlarging a small one "
        "adds no detail.",
        [side_by_side(columns), _size_plot(pictures)],
    )


def _size_facts(pictures: Sequence[PictureInfo]) -> dict[str, object]:
    sizes = Counter((picture.width, picture.height) for picture in pictures)
    (width, height), most = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    sides = np.array([sorted((picture.width, picture.height)) for picture in pictures])  # (N, 2)
    total = len(pictures)
    wide = sum(picture.width > picture.height for picture in pictures)
    high = sum(picture.width < picture.height for picture in pictures)
    grey = total - sum(picture.colour for picture in pictures)
    result: dict[str, object] = {
        "pictures": total,
        "different sizes": len(sizes),
        "most frequent size": f"{width}\u00a0x\u00a0{height}",
        "share of that size": share(most, total),
    }
    for name, values in (("shorter", sides[:, 0]), ("longer", sides[:, 1])):
        result |= {f"{name} side, least": values.min(), f"{name} side, median": int(np.median(values))}
        result[f"{name} side, most"] = values.max()
    return result | {
        "wider than high": share(wide, total),
        "higher than wide": share(high, total),
        "square": share(total - wide - high, total),
        "more than twice as long as wide": int((sides[:, 1] > 2 * sides[:, 0]).sum()),
        f"a side under {_USUAL} pixels, the usual input": int((sides[:, 0] < _USUAL).sum()),
        "in shades of grey": grey,
        "share in shades of grey": share(grey, total),
    }


def _size_plot(pictures: Mapping[str, Sequence[PictureInfo]]) -> Plot:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratios = {}
    for split, of_split in pictures.items():
        sizes = Counter((picture.width, picture.height) for picture in of_split)
        widths, heights = np.array(list(sizes)).T
        areas = (10 + 200 * np.array(list(sizes.values())) / len(of_split)) * SPLIT_WIDTHS[split] / 2
        left.scatter(widths, heights, areas, color=SPLIT_COLOURS[split], alpha=0.7, linewidths=0)
        ratios[split] = [math.log2(picture.width / picture.height) for picture in of_split]
    side = 1.1 * max(max(picture.width, picture.height) for of_split in pictures.values() for picture in of_split)
    left.plot([0, side], [0, side], color="#999", linewidth=0.7, linestyle="--")
    left.set(xlim=(0, side), ylim=(0, side), xlabel="width in pixels", ylabel="height in pixels")
    end = max(1.0, *(abs(value) for values in ratios.values() for value in values)) * 1.05
    draw_histograms(right, ratios, np.linspace(-end, end, 42).tolist())
    ticks = [tick for tick in (-3, -2, -1, 0, 1, 2, 3) if abs(tick) <= end]
    right.set_xticks(ticks, [f"{2**tick}:1" if tick >= 0 else f"1:{2**-tick}" for tick in ticks])
    right.set(xlabel="width : height (logarithmic)", ylabel="% of the split's pictures")
    legend_above(figure, right)
    return plot(figure, "Width and height of the pictures, and the distribution of their ratio, for every split")


def sample_section(rows: Sequence[Row], names: Sequence[str]) -> Section:
    """Return a few pictures of every label, and of rows without any, chosen by chance but always the same.

    Args:
        rows: those of all splits; samples of a label come from the first split that has pictures of it.
        names: those of the labels.
    """
    least, most = _PER_LABEL
    number = max(least, min(most, _SAMPLES // len(names)))
    seen = [row for row in rows if row.picture is not None]
    groups = {name: [row for row in seen if index in (row.record.labels or ())] for index, name in enumerate(names)}
    groups["None of the labels"] = [row for row in seen if row.record.labels == () and not row.record.unknown]
    sections = []
    for name, members in groups.items():
        first = [row for row in members if row.split == members[0].split]
        chosen = sorted(np.random.default_rng(_SEED).permutation(len(first))[:number])
        pictures = [row_picture(first[index], names) for index in chosen]
        sections.append(Section(f"{name} ({len(members):,})", "", pictures))
    return Section(
        "Sample pictures",
        f"Up to {number} pictures of every label, chosen by chance; the number of all its pictures is in brackets.",
        sections,
    )


def row_picture(row: Row, names: Sequence[str]) -> Picture:
    """Return a row's picture with its name, split, labels and first caption; it must have a picture."""
    record = row.record
    if record.image is None:
        raise ValueError("the row has no picture")
    labels = "not labelled" if record.labels is None else ", ".join(names[i] for i in record.labels) or "no label"
    if record.unknown:
        labels += f" (unknown: {', '.join(names[i] for i in record.unknown)})"
    lines = [f"{shorten(record.image_id or '', 40)} ({row.split})", shorten(labels)]
    if record.captions:
        lines.append(f"“{shorten(record.captions[0], 80)}”")
    return thumbnail(load_image(image_source(record.image)), "\n".join(lines), _SIDE)
