"""Problems of data, by kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]

PROBLEM_KINDS = {
    "bad-file": "a file that cannot be read at all: missing, not UTF-8, a wrong header, not the format it should be",
    "bad-row": "a row that is malformed, or that has neither a picture nor a caption",
    "unknown-label": "a label that is in no labels file, or that the training split does not have",
    "missing-picture": "a row names a picture that is not there",
    "undecodable-picture": "a picture that is there but cannot be decoded",
    "duplicate-id": "a picture named again with other labels (error), or with nothing new (warning)",
    "duplicate-picture": "two pictures of one split with the same bytes under different names",
    "split-overlap": "one picture in two splits, or a row that names another split than its file does",
    "empty-caption": "a caption is given but blank; the row counts as having none",
    "empty-split": "no usable record",
    "ignored": "something in a source that nothing is read from, such as a column or tasks without answers (warning)",
    "interpreted": "how a source was read where it could be read otherwise, such as boxes as labels (warning)",
    "similar-labels": "labels that look alike and may be one (warning)",
    "unlabelled": "rows without labels, as from a file with no Labels column; training leaves them out",
    "unused-label": "a label that no record of the split has: it cannot be learned, tuned or measured (error: it is "
    "unknown in every training record)",
}
"""Every `Problem.kind`, with what it means."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of the data.

    Attributes:
        file: the file.
        number: the record's 1-based number in that file; None when the problem is not of one record.
        kind: one of PROBLEM_KINDS.
        message: what was found and what was expected, on one line.
        severity: "error" when training would stop or learn something wrong, "warning" when it is allowed.
    """

    file: Path
    number: int | None
    kind: str
    message: str
    severity: Severity = "error"

    def __post_init__(self) -> None:
        if self.kind not in PROBLEM_KINDS:
            raise ValueError(f"unknown kind of problem {self.kind!r}; known are {', '.join(PROBLEM_KINDS)}")

    @property
    def where(self) -> str:
        """The place, as it stands before a message."""
        return f"{self.file}:" if self.number is None else f"{self.file}:record {self.number}:"

    def __str__(self) -> str:
        return f"{self.where} {self.kind}: {self.message}"


EXAMPLES = 3  # of a kind of problem that are shown


@dataclass(frozen=True, slots=True)
class ProblemCount:
    """How often a kind of problem occurs.

    Attributes:
        severity: "error" or "warning".
        kind: one of PROBLEM_KINDS.
        count: the problems of that severity and kind.
        examples: the first of them, each with its place: "FILE:record 7: message".
    """

    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...]

    def line(self, verb: str | None = None) -> str:
        """Return one line for people; `verb` says what was done, else the severity stands there."""
        more = f"; ... {self.count - len(self.examples):,} more" if self.count > len(self.examples) else ""
        return f"{verb or self.severity}: {self.count:,} x {self.kind}: {'; '.join(self.examples)}{more}"


def count_problems(problems: Iterable[Problem], examples: int | None = EXAMPLES) -> tuple[ProblemCount, ...]:
    """Return the problems by severity and kind, errors first, in the order of PROBLEM_KINDS.

    Args:
        problems: any number of them; of an iterator, only the examples are kept.
        examples: how many of each kind to keep; None keeps all.
    """
    counts: dict[tuple[Severity, str], int] = {}
    kept: dict[tuple[Severity, str], list[str]] = {}
    for problem in problems:
        key = problem.severity, problem.kind
        counts[key] = counts.get(key, 0) + 1
        if examples is None or counts[key] <= examples:
            kept.setdefault(key, []).append(f"{problem.where} {problem.message}")
    order = {kind: place for place, kind in enumerate(PROBLEM_KINDS)}
    keys = sorted(counts, key=lambda key: (key[0] != "error", order[key[1]]))
    return tuple(ProblemCount(*key, counts[key], tuple(kept.get(key, ()))) for key in keys)
