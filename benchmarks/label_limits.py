"""Shows what limits a released model: each label's rows in training beside its average precision and errors in test.

    python benchmarks/label_limits.py benchmarks/results/release-hybrid.json

It reads what release.py wrote. A missed label is true and not predicted, a false one is predicted and not true, both on
the labelled rows of test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import markdown_table, read_json

from mlic_runtime.cli.command import MlicCommand

_MODES = {"test": "both", "test-picture-only": "picture", "test-caption-only": "caption"}
_ERRORS = ("missed", "false", "false_on_negatives")


def by_label(result: Mapping[str, Any], precision: str) -> str:
    """Return a table with a line for each label, the rarest in train.csv first."""
    modes = {name: title for name, title in _MODES.items() if name in result["labels"][precision]}
    tables = [result["labels"][precision][name] for name in modes]
    counts = result["rows_with_label"]
    header = ["label", "train rows", "captions", "test rows", *(f"AP, {title}" for title in modes.values())]
    header += [f"missed + false, {title}" for title in modes.values()]
    lines = [
        [
            label,
            str(counts[label]["train"]),
            f"{sum(count for name, count in counts[label].items() if name != 'train'):,}",
            str(tables[0][label]["positives"]),
            *("" if table[label]["ap"] is None else f"{table[label]['ap']:.3f}" for table in tables),
            *(f"{table[label]['missed']} + {table[label]['false']}" for table in tables),
        ]
        for label in sorted(counts, key=lambda name: counts[name]["train"])
    ]
    return markdown_table(header, lines)


def by_mode(result: Mapping[str, Any], precision: str) -> str:
    """Return a table with a line for each mode: its errors, and how its average precision follows the training rows."""
    counts = result["rows_with_label"]
    lines = []
    for name, title in _MODES.items():
        table = result["labels"][precision].get(name)
        if table is None:
            continue
        total = {error: sum(row[error] for row in table.values()) for error in _ERRORS}
        true = sum(row["positives"] for row in table.values())
        person = table["person"]["missed"] + table["person"]["false"] if "person" in table else 0
        occurring = [label for label, row in table.items() if row["ap"] is not None]
        rows = [counts[label]["train"] for label in occurring]
        lines.append(
            [
                title,
                f"{total['missed']} of {true}",
                str(total["false"]),
                f"{person / max(1, total['missed'] + total['false']):.0%}",
                str(total["false_on_negatives"]),
                rank_correlation(rows, [table[label]["ap"] for label in occurring]),
            ]
        )
    header = [
        "mode",
        "missed",
        "false",
        '"person" among these',
        "false on negatives",
        "rank correlation of AP and train rows",
    ]
    return markdown_table(header, lines)


def rank_correlation(first: list[float], second: list[float]) -> str:
    """Return Spearman's correlation as text: that of the ranks, the mean rank for equal values (Spearman 1904).

    It is empty where all values of one of them are equal.
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return ""
    return f"{np.corrcoef(_ranks(first), _ranks(second))[0, 1]:+.2f}"


def _ranks(values: list[float]) -> list[float]:
    given = np.asarray(values)
    return [float(((given < value).sum() + (given <= value).sum()) / 2) for value in given]


@click.command(cls=MlicCommand)
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--precision", help="The graph.  [default: the first]")
def main(result: Path, precision: str | None) -> None:
    """Print two tables of a result of release.py, by mode and by label."""
    measured = read_json(result)
    if "rows_with_label" not in measured:
        raise click.ClickException(f"{result} has no labels; expected a file that release.py wrote")
    known = list(measured["labels"])
    chosen = known[0] if precision is None else precision
    if chosen not in known:
        raise click.ClickException(f"{result} has no graph {chosen}; it has: {', '.join(known)}")
    click.echo(f"{by_mode(measured, chosen)}\n\n{by_label(measured, chosen)}")


if __name__ == "__main__":
    main()
