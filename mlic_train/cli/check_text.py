"""What `mlic-train --check` prints for people: what was read as what, tables, problems, and what to do."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlic_train.data.splits import DataCheck

_LABELS = 20  # labels whose counts are shown
_SOURCES = 10  # sources of a format that are named
# A row with such an error is left out by --skip-bad-rows.
_SKIPPABLE = {"bad-row", "unknown-label", "missing-picture", "undecodable-picture", "duplicate-id", "split-overlap"}


def check_lines(check: "DataCheck", *, list_all: bool) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        check: what was found.
        list_all: with every source, every label, and a line for every problem that `check` holds.
    """
    from mlic_train.data.splits import describe_sources

    yield from describe_sources(check.read_as, None if list_all else _SOURCES)
    yield ""
    yield from _split_table(check)
    yield ""
    yield from _label_table(check, None if list_all else _LABELS)
    if check.notes:
        yield ""
        yield from check.notes
    if check.problems:
        yield ""
    for problem in check.problems:
        if list_all:
            yield from (f"{problem.severity}: {problem.kind}: {example}" for example in problem.examples)
        else:
            yield problem.line()


def verdict(check: "DataCheck", command: str) -> str:
    """Return one line: how many errors and warnings, and the next command, or what to do.

    Args:
        check: what was found.
        command: what trains on this data.
    """
    found = f"{check.errors:,} errors, {check.warnings:,} warnings"
    if not check.errors:
        return f"{found}; next: {command}"
    errors = {problem.kind for problem in check.problems if problem.severity == "error"}
    if errors <= _SKIPPABLE and check.splits and all(summary.labelled for summary in check.splits.values()):
        return f"{found}; mend them, or leave these rows out: {command} --skip-bad-rows"
    return f"{found}; mend them, then check again"


def _split_table(check: "DataCheck") -> Iterator[str]:
    unknown = any(summary.unknown for summary in check.splits.values())
    header = ["split", "rows", "pictures", "captions", "labelled", *(["unknown labels"] if unknown else [])]
    rows = []
    for name, summary in check.splits.items():
        counts = [summary.records, summary.with_picture, summary.captions, summary.labelled]
        rows.append([name, *(f"{count:,}" for count in [*counts, *([summary.unknown] if unknown else [])])])
    yield from _table(header, rows)


def _label_table(check: "DataCheck", limit: int | None) -> Iterator[str]:
    rows = [
        [label, *(f"{summary.label_counts[label]:,}" for summary in check.splits.values())] for label in check.labels
    ]
    yield from _limited(list(_table(["label", *check.splits], rows)), limit and limit + 1, "labels")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: the first column to the left, the others to the right."""
    columns = list(zip(header, *rows, strict=True))
    first, *others = ([cell.rjust(max(map(len, column))) for cell in column] for column in columns)
    first = [cell.strip().ljust(len(cell)) for cell in first]
    yield from ("  ".join(cells) for cells in zip(first, *others, strict=True))


def _limited(lines: Sequence[str], limit: int | None, what: str) -> Iterator[str]:
    yield from lines[:limit]
    if limit is not None and len(lines) > limit:
        yield f"... {len(lines) - limit:,} more {what}; --all lists them"
