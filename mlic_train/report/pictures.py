"""How large pictures are, and what they look like: sizes, and a sheet of samples per label."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlic_runtime.picture.decode import load_image
from mlic_train.data import Record, Split
from mlic_train.data.source.members import image_source

from .html import paragraph, picture, subheading
from .leakage import Place
from .looks import Look
from .plots import render
from .split_style import COLOURS, WIDTHS, outlines
from .wording import count, quoted, share, shorten

_SHEET = 240  # sample pictures in all, so that the file stays small with many labels too
_PER_LABEL = (2, 5)  # at least and at most; five stand side by side
_SIDE = 160  # pixels of a sample picture
_SEED = 0


def size_parts(looks: Mapping[str, Sequence[Look]]) -> list[str]:
    """Sizes and aspect ratios of the pictures of every split."""
    every = [look for found in looks.values() for look in found]
    sizes = Counter((look.width, look.height) for look in every)
    (width, height), most = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if len(sizes) == 1:
        text = f"All {count(len(every), 'picture')} measure {width} x {height} pixels. "
    else:
        sides = np.array([sorted((look.width, look.height)) for look in every])
        text = (
            f"{count(len(every), 'picture')} of {len(sizes):,} sizes; the most frequent is {width} x {height} "
            f"({share(most, len(every))}). The shorter side has {sides[:, 0].min():,} to {sides[:, 0].max():,} pixels "
            f"(median {np.median(sides[:, 0]):,.0f}), the longer {sides[:, 1].min():,} to {sides[:, 1].max():,} "
            f"(median {np.median(sides[:, 1]):,.0f}). "
        )
    wide = sum(look.width > look.height for look in every)
    tall = sum(look.width < look.height for look in every)
    text += f"{share(wide, len(every))} are wider than high, {share(tall, len(every))} higher than wide"
    text += f", {share(len(every) - wide - tall, len(every))} square. "
    extreme = sum(max(look.width, look.height) > 2 * min(look.width, look.height) for look in every)
    if extreme:
        text += f"{count(extreme, 'picture')} more than twice as long as wide: made square, they are distorted or cut. "
    small = sum(min(look.width, look.height) < 224 for look in every)
    if small:
        text += f"{count(small, 'picture')} with a side under 224 pixels, the usual input: enlarging adds no detail. "
    grey = sum(not look.colour for look in every)
    if grey:
        text += f"{count(grey, 'picture')} ({share(grey, len(every))}) in shades of grey."
    return [paragraph(text), _size_figure(looks)]


def _size_figure(looks: Mapping[str, Sequence[Look]]) -> str:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    largest = 0
    ratios: dict[str, list[float]] = {}
    for split, found in looks.items():
        if not found:
            continue
        sizes = Counter((look.width, look.height) for look in found)
        widths, heights = np.array(list(sizes)).T
        largest = max(largest, int(widths.max()), int(heights.max()))
        areas = (10 + 200 * np.array(list(sizes.values())) / len(found)) * WIDTHS[split] / 2
        left.scatter(widths, heights, areas, color=COLOURS[split], alpha=0.7, linewidths=0)
        ratios[split] = [math.log2(look.width / look.height) for look in found]
    left.plot([0, 1.1 * largest], [0, 1.1 * largest], color="#999", linewidth=0.7, linestyle="--")
    left.set(xlim=(0, 1.1 * largest), ylim=(0, 1.1 * largest), xlabel="width in pixels", ylabel="height in pixels")
    end = max(1.0, *(abs(value) for values in ratios.values() for value in values)) * 1.05
    outlines(right, ratios, np.linspace(-end, end, 42).tolist())
    ticks = [tick for tick in (-3, -2, -1, 0, 1, 2, 3) if abs(tick) <= end]
    right.set_xticks(ticks, [f"{2**tick}:1" if tick >= 0 else f"1:{2**-tick}" for tick in ticks])
    right.set(xlabel="width : height (logarithmic)", ylabel="% of the split's pictures")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return render(figure, "Width and height of the pictures, and the distribution of their ratio, for every split")


def sample_parts(splits: Mapping[str, Split], usable: Iterable[object]) -> list[str]:
    """A few pictures of every label, and of the rows with none, chosen by chance but always the same.

    Args:
        splits: from the first that has pictures of a label they are taken.
        usable: the picture files that can be read.
    """
    known = set(usable)
    labels = next(iter(splits.values())).labels
    least, most = _PER_LABEL
    number = max(least, min(most, _SHEET // len(labels)))
    places = [
        Place(name, record) for name, split in splits.items() for record in split.records if record.image in known
    ]
    parts = [paragraph(f"Up to {number} pictures of a label, chosen by chance with the seed {_SEED}.")]
    for index, label in [*enumerate(labels.names), (None, "None of the labels")]:
        having = [place for place in places if _has(place.record, index)]
        parts.append(subheading(f"{label} ({count(len(having), 'picture')})"))
        first = [place for place in having if place.split == having[0].split]
        chosen = np.random.default_rng(_SEED).permutation(len(first))[:number]
        parts += [show(first[k], labels.names) for k in sorted(chosen)]
    return parts


def show(place: Place, names: Sequence[str]) -> str:
    """A row's picture with its name, split, labels and first caption."""
    record = place.record
    if record.image is None:
        raise ValueError("the row has no picture")
    labels = "not labelled" if record.labels is None else ", ".join(names[i] for i in record.labels) or "no label"
    lines = [f"{shorten(record.image_id or '', 40)} ({place.split})", shorten(labels)]
    if record.captions:
        lines.append(quoted(record.captions[0]))
    return picture(load_image(image_source(record.image)), "\n".join(lines), _SIDE)


def _has(record: Record, index: int | None) -> bool:
    return record.labels == () if index is None else index in (record.labels or ())
