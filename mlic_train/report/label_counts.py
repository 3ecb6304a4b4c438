"""How often labels occur, how many a row has, and which occur together."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_train.data import Split

from .page import Plot, Section, Table, facts, left_out, table
from .plots import SPLIT_COLOURS, bar_positions, drawable, legend_above, plot, share_matrix
from .text import share

_FEW = 10  # rows; fewer say little about a label's precision or recall, or about a pair of labels
_CHANCE = 3  # standard errors between two shares; three in a thousand differ as much by chance
_MOST_LABELS = 12  # of a row; more share one bar
_LISTED = 20  # pairs of labels

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def label_sections(splits: Mapping[str, Split]) -> list[Section]:
    """Return the sections on label counts, on labels per row, and on labels that occur together."""
    titles = ("Label counts", "Labels per row", "Labels that occur together")
    names = next(iter(splits.values())).labels.names
    matrices = {name: matrix for name, split in splits.items() if len(matrix := label_matrix(split))}
    known = {name: known_matrix(splits[name]) for name in matrices}
    if not matrices:
        return [left_out(title, "no row is labelled") for title in titles]
    sections = [_counts_section(titles[0], names, matrices, known), _per_row_section(titles[1], matrices, known)]
    if len(names) < 2:
        return [*sections, left_out(titles[2], "there is only one label")]
    first, matrix = next(iter(matrices.items()))
    return [*sections, _together_section(titles[2], names, first, matrix, known[first])]


def label_matrix(split: Split) -> Bools:
    """Return the labels of the rows that are labelled: bool (N, L)."""
    known = [record.labels for record in split.records if record.labels is not None]
    matrix = np.zeros((len(known), len(split.labels)), dtype=np.bool_)
    for row, labels in zip(matrix, known, strict=True):
        row[list(labels)] = True
    return matrix


def known_matrix(split: Split) -> Bools:
    """Return which labels of these rows are known: bool (N, L)."""
    unknown = [record.unknown for record in split.records if record.labels is not None]
    matrix = np.full((len(unknown), len(split.labels)), True)
    for row, labels in zip(matrix, unknown, strict=True):
        row[list(labels)] = False
    return matrix


def _counts_section(
    title: str, names: Sequence[str], matrices: Mapping[str, Bools], known: Mapping[str, Bools]
) -> Section:
    counts = {split: matrix.sum(axis=0) for split, matrix in matrices.items()}
    totals = {split: matrix.sum(axis=0) for split, matrix in known.items()}
    some_unknown = not all(matrix.all() for matrix in known.values())
    first = next(iter(matrices))
    order = np.argsort(-counts[first], kind="stable")
    header, columns = ["label"], [[names[i] for i in order]]
    for split, matrix in matrices.items():
        header += [f"{split} rows", "share"]
        columns += [[counts[split][i] for i in order], [share(counts[split][i], totals[split][i]) for i in order]]
        if some_unknown:
            header.append("unknown")
            columns.append([len(matrix) - totals[split][i] for i in order])
        if split != first:
            header.append(f"z against {first}")
            columns.append(
                [f"{z:+.1f}" for z in _z_scores(counts[first], totals[first], counts[split], totals[split])[order]]
            )
    return Section(
        title,
        f"A label with fewer than {_FEW} rows can hardly be learned or measured; a z beyond +{_CHANCE} or -{_CHANCE} "
        f"says that its share differs from that in {first} by more than chance."
        + (" Shares are of the rows in which the label is not unknown." if some_unknown else ""),
        [_counts_plot(names, totals, counts, order), Table(header, list(zip(*columns, strict=True)))],
    )


def _z_scores(first: Ints, first_rows: Ints, other: Ints, other_rows: Ints) -> npt.NDArray[np.float64]:
    """Return by how many standard errors the shares of `other` differ; the pooled two-proportion z test.

    All are int (L): the rows with each label, and the rows that know it. Where no row of a split does, z is 0.
    """
    m, n = np.maximum(first_rows, 1), np.maximum(other_rows, 1)
    pooled = (first + other) / (m + n)
    error = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / m + 1 / n), 1e-12))
    z: npt.NDArray[np.float64] = (other / n - first / m) / error
    return np.where((first_rows > 0) & (other_rows > 0), z, 0.0)


def _counts_plot(
    names: Sequence[str], totals: Mapping[str, Ints], counts: Mapping[str, Ints], order: npt.NDArray[np.intp]
) -> Plot:
    size, line = (9, 0.32) if len(names) <= 40 else (7, 0.24)
    figure = Figure(figsize=(9.5, 1.1 + line * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    offsets, height = bar_positions(len(totals))
    for offset, (split, total) in zip(offsets, totals.items(), strict=True):
        values, colour = counts[split][order], SPLIT_COLOURS[split]
        positions = np.arange(len(names)) + offset
        left.barh(positions, values, height, label=split, color=colour)
        right.barh(positions, 100 * values / np.maximum(total[order], 1), height, color=colour)
    logarithmic = max(int(values.max()) for values in counts.values()) >= 100
    if logarithmic:
        left.set_xscale("log")
        left.set_xlim(left=0.8)
    left.set_yticks(range(len(names)), [drawable(names[i]) for i in order], fontsize=size)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_xlabel("rows (logarithmic)" if logarithmic else "rows")
    right.set_xlabel("% of the split's rows")
    legend_above(figure, left)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return plot(figure, "Rows with each label, and their share, for every split")


def _per_row_section(title: str, matrices: Mapping[str, Bools], known: Mapping[str, Bools]) -> Section:
    numbers = {split: matrix.sum(axis=1) for split, matrix in matrices.items()}
    rows = [
        {
            "split": split,
            "labels of a row, on average": f"{values.mean():.2f}",
            "at most": values.max(),
            "rows with none of the labels": share(int(((values == 0) & known[split].all(axis=1)).sum()), len(values)),
        }
        for split, values in numbers.items()
    ]
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    most = max(int(values.max()) for values in numbers.values())
    top = min(most, _MOST_LABELS)
    offsets, width = bar_positions(len(numbers))
    for offset, (split, values) in zip(offsets, numbers.items(), strict=True):
        shares = np.bincount(np.minimum(values, top), minlength=top + 1) / len(values)
        axes.bar(np.arange(top + 1) + offset, 100 * shares, width, label=split, color=SPLIT_COLOURS[split])
    axes.set_xticks(range(top + 1), [*map(str, range(top)), f"{top} or more" if most > top else str(top)])
    axes.set(xlabel="labels of a row", ylabel="% of the split's rows")
    axes.legend(frameon=False)
    return Section(
        title,
        "Where the share of rows without labels differs by more than ten points, a threshold that is right for one "
        "split need not be right for another.",
        [table(rows), plot(figure, "Share of rows by their number of labels, for every split")],
    )


def _together_section(title: str, names: Sequence[str], split: str, matrix: Bools, known: Bools) -> Section:
    values, counted = matrix.astype(np.float32), known.astype(np.float32)
    together = (values.T @ values).astype(np.int64)  # exact up to 2 ** 24 rows
    # [i, j]: of the rows that know label j, those with label i; of the rows that know i, those that know j.
    having, knowing = ((left.T @ counted).astype(np.int64) for left in (values, counted))
    alone = together.diagonal()
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if having[i, j] and having[j, i]]
    often = [(i, j) for i, j in pairs if together[i, j] >= _FEW]
    never = sum(int(together[pair] == 0) for pair in pairs)
    # How many times as often as if the two had nothing to do with each other.
    lift = {(i, j): together[i, j] * knowing[i, j] / (having[i, j] * having[j, i]) for i, j in often}
    furthest = sorted(often, key=lambda pair: (-abs(np.log(lift[pair])), pair))[:_LISTED]
    rows = [
        {
            "label": names[i],
            "with": names[j],
            "rows with both": together[i, j],
            "share of the first": share(together[i, j], having[i, j]),
            "share of the second": share(together[i, j], having[j, i]),
            "times as often as by chance": f"{lift[i, j]:.2f}",
        }
        for i, j in sorted(furthest, key=lambda pair: (-lift[pair], pair))
    ]
    counts = [
        ("pairs of labels that never occur together", f"{never:,} of {len(pairs):,}"),
        (f"pairs in {_FEW} rows or more", f"{len(often):,} of {len(pairs):,}"),
        ("of these, listed: those furthest from chance", f"{len(rows):,} of {len(often):,}"),
    ]
    shares = together / np.maximum(having, 1)
    np.fill_diagonal(shares, np.nan)  # a label always occurs with itself; in grey it does not drown the others
    beside = [f"{drawable(name)} ({n:,})" for name, n in zip(names, alone, strict=True)]
    alt = "Of the rows with one label, the share that has another label too"
    return Section(
        title,
        f"Row i, column j of the matrix: the share of the rows of {split} with label i that have label j too.",
        [
            share_matrix(shares, list(map(drawable, names)), beside, alt),
            facts(counts),
            *([table(rows)] if rows else []),
        ],
    )
