"""How often labels occur, how many a row has, which occur together: numbers, sentences and plots."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_runtime.base.arrays import Bools
from mlic_train.data import Split

from .html import paragraph, table
from .plots import drawable, render
from .split_style import COLOURS
from .wording import count, listing, quoted, share

_FEW = 10  # positives; fewer say little about a label's precision or recall
_CHANCE = 3.0  # standard errors between two shares; three in a thousand differ as much by chance
_MOST_LABELS = 12  # per row; more share one bar
_ANNOTATED = 32  # labels up to which a matrix has room for numbers


def label_matrix(split: Split) -> Bools:
    """The labels of the rows that are labelled: bool (N, L)."""
    known = [record.labels for record in split.records if record.labels is not None]
    matrix = np.zeros((len(known), len(split.labels)), dtype=np.bool_)
    for row, labels in zip(matrix, known, strict=True):
        row[list(labels)] = True
    return matrix


def label_counts_parts(names: Sequence[str], matrices: Mapping[str, Bools]) -> list[str]:
    """How many rows have each label."""
    counts = {split: matrix.sum(axis=0) for split, matrix in matrices.items()}
    first = next(iter(matrices))
    order = np.argsort(-counts[first], kind="stable")
    rows = [
        [names[i], *(cell for split in matrices for cell in _count_and_share(counts[split][i], len(matrices[split])))]
        for i in order
    ]
    header = ["label", *(cell for split in matrices for cell in (f"{split} rows", "share"))]
    text = [_extremes(names, first, counts[first], len(matrices[first]))]
    text += [_rare(names, split, counts[split]) for split in matrices]
    text += [_shifted(names, first, split, matrices) for split in list(matrices)[1:]]
    return [
        paragraph(" ".join(filter(None, text))),
        _counts_figure(names, matrices, counts, order),
        table(header, rows),
    ]


def labels_per_row_parts(matrices: Mapping[str, Bools]) -> list[str]:
    """How many labels a row has."""
    numbers = {split: matrix.sum(axis=1) for split, matrix in matrices.items()}
    most = {split: int(values.max()) for split, values in numbers.items()}
    text = "Labels of a row, on average: " + listing(
        [f"{values.mean():.2f} in {name}" for name, values in numbers.items()]
    )
    text += "; at most: " + listing([f"{value} in {name}" for name, value in most.items()]) + ". "
    empty = {split: float((values == 0).mean()) for split, values in numbers.items()}
    if any(empty.values()):
        text += "Rows with none of the labels: "
        text += listing([f"{share(value, 1)} of {split}" for split, value in empty.items()]) + ". "
    else:
        text += "Every row has a label. "
    if max(empty.values()) - min(empty.values()) > 0.1:
        text += (
            "These shares differ by more than ten points, so false alarms on rows without labels weigh differently in "
            "each split: a threshold that is right for one need not be right for another."
        )
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    top = min(max(most.values()), _MOST_LABELS)
    width = 0.8 / len(numbers)
    for place, (split, values) in enumerate(numbers.items()):
        shares = np.bincount(np.minimum(values, top), minlength=top + 1) / len(values)
        axes.bar(
            np.arange(top + 1) + (place - (len(numbers) - 1) / 2) * width,
            100 * shares,
            width,
            label=split,
            color=COLOURS[split],
        )
    more = [f"{top} or more"] if max(most.values()) > top else [str(top)]
    axes.set_xticks(range(top + 1), [*map(str, range(top)), *more])
    axes.set(xlabel="labels of a row", ylabel="% of the split's rows")
    axes.legend(frameon=False)
    return [paragraph(text), render(figure, "Share of rows by their number of labels, for every split")]


def co_occurrence_parts(names: Sequence[str], split: str, matrix: Bools) -> list[str]:
    """Which labels occur together in the rows of one split."""
    values = matrix.astype(np.float32)
    together = (values.T @ values).astype(np.int64)  # exact up to 2 ** 24 rows
    if len(names) < 2:
        return [paragraph("There is only one label: nothing can occur together.")]
    text = _together(names, together, len(matrix))
    text += f" Row i, column j of the matrix: of the rows of {split} that have label i, the share that has label j too."
    return [paragraph(text), _matrix_figure(names, together)]


def _count_and_share(number: int, total: int) -> tuple[str, str]:
    return f"{number:,}", share(number, total)


def _extremes(names: Sequence[str], split: str, counts: npt.NDArray[np.int64], rows: int) -> str:
    most, least = int(counts.argmax()), int(counts.argmin())
    text = f"In {split}, the label of the most rows is {quoted(names[most])} ({counts[most]:,} of {rows:,}, "
    text += f"{share(counts[most], rows)}), of the fewest {quoted(names[least])} ({counts[least]:,}"
    if counts[least] and most != least:
        return f"{text}): {counts[most] / counts[least]:,.1f} to 1."
    return text + ")."


def _rare(names: Sequence[str], split: str, counts: npt.NDArray[np.int64]) -> str:
    rare = [f"{names[i]} ({counts[i]})" for i in np.argsort(counts, kind="stable") if counts[i] < _FEW]
    if not rare:
        return f"Every label has at least {_FEW} rows in {split}."
    what = "can hardly be learned" if split == "train" else "cannot be measured well there"
    return f"Fewer than {_FEW} rows in {split}, so {what}: {listing(rare, 8)}."


def _shifted(names: Sequence[str], first: str, split: str, matrices: Mapping[str, Bools]) -> str:
    """The labels whose share differs between two splits by more than chance; the pooled two-proportion z test."""
    a, b = matrices[first], matrices[split]
    pooled = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
    error = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / len(a) + 1 / len(b)), 1e-12))
    z = (b.mean(axis=0) - a.mean(axis=0)) / error
    far = [i for i in np.argsort(-np.abs(z), kind="stable") if abs(z[i]) > _CHANCE]
    if not far:
        return f"No label's share in {split} differs from {first} by more than chance."
    found = [
        f"{names[i]} ({share(a[:, i].sum(), len(a))} in {first}, {share(b[:, i].sum(), len(b))} in {split})"
        for i in far
    ]
    return f"More than chance apart, {first} to {split}: {listing(found, 3)}."


def _counts_figure(
    names: Sequence[str],
    matrices: Mapping[str, Bools],
    counts: Mapping[str, npt.NDArray[np.int64]],
    order: npt.NDArray[np.intp],
) -> str:
    size = 9 if len(names) <= 40 else 7
    figure = Figure(figsize=(9.5, 1.1 + (0.32 if len(names) <= 40 else 0.24) * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(matrices)
    for place, (split, matrix) in enumerate(matrices.items()):
        positions = np.arange(len(names)) + (place - (len(matrices) - 1) / 2) * height
        left.barh(positions, counts[split][order], height, label=split, color=COLOURS[split])
        right.barh(positions, 100 * counts[split][order] / len(matrix), height, color=COLOURS[split])
    largest = max(int(values.max()) for values in counts.values())
    if largest >= 100:
        left.set_xscale("log")
        left.set_xlim(left=0.8)
    left.set_yticks(range(len(names)), [drawable(names[i]) for i in order], fontsize=size)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_xlabel("rows" + (" (logarithmic)" if largest >= 100 else ""))
    right.set_xlabel("% of the split's rows")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return render(figure, "Rows with each label, and their share, for every split")


def _together(names: Sequence[str], together: npt.NDArray[np.int64], rows: int) -> str:
    alone = together.diagonal()
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if alone[i] and alone[j]]
    never = sum(int(together[i, j] == 0) for i, j in pairs)
    occur = "occurs" if never == 1 else "occur"
    text = f"Of {count(len(pairs), 'pair')} of labels that occur, {never or 'none'} never {occur} together."
    often = [(i, j) for i, j in pairs if together[i, j] >= _FEW]
    if not often:
        return f"{text} No two labels share {_FEW} rows."
    # How many times as often as if the two had nothing to do with each other.
    lift = {(i, j): together[i, j] * rows / (alone[i] * alone[j]) for i, j in often}
    bound = sorted(often, key=lambda pair: (-lift[pair], pair))[:3]
    found = [
        f"{quoted(names[i])} with {quoted(names[j])} ({together[i, j]:,} rows, {lift[i, j]:.1f} times)"
        for i, j in bound
    ]
    text += f" Furthest above chance, of those in {_FEW} rows or more: {listing(found)}."
    apart = min(often, key=lambda pair: (lift[pair], pair))
    if lift[apart] < 1:
        i, j = apart
        text += f" Furthest below: {quoted(names[i])} with {quoted(names[j])} ({lift[apart]:.2f} times)."
    a, b = max(
        ((i, j) for pair in often for i, j in (pair, pair[::-1])),
        key=lambda pair: (together[pair] / alone[pair[0]], pair),
    )
    text += (
        f" Surest: {share(together[a, b], alone[a])} of the rows with {quoted(names[a])} have {quoted(names[b])} too."
    )
    return text


def _matrix_figure(names: Sequence[str], together: npt.NDArray[np.int64]) -> str:
    annotated = len(names) <= _ANNOTATED
    cell, size = (0.38, 8) if annotated else (0.17, 6)
    alone = together.diagonal()
    shares = together / np.maximum(alone, 1)[:, None]
    np.fill_diagonal(shares, np.nan)  # a label always occurs with itself; in grey it does not drown the others
    side = cell * len(names)
    figure = Figure(figsize=(side + 2.2, side + 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("#ddd")
    image = axes.imshow(100 * shares, vmin=0, vmax=max(1.0, float(np.nanmax(100 * shares))), cmap="Blues")
    shown = [drawable(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=45, ha="left", rotation_mode="anchor", fontsize=size)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), [f"{name} ({n:,})" for name, n in zip(shown, alone, strict=True)], fontsize=size)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("% of the row's label", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if annotated:
        dark = 0.6 * float(np.nanmax(shares))
        for (i, j), value in np.ndenumerate(shares):
            if i != j and together[i, j]:
                colour = "white" if value > dark else "black"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return render(figure, "Of the rows with one label, the share that has another label too")
