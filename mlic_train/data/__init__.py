"""Data sets: annotation files of every format in `formats` become records; they are checked, and written as shards."""

from .check import check_splits
from .folder import SplitFiles, find_splits
from .labels import LabelSet
from .problems import PROBLEM_KINDS, Problem
from .reader import read_labels, read_split
from .records import Record, Split
from .summary import SplitSummary, fingerprint, summarise

__all__ = [
    "PROBLEM_KINDS",
    "LabelSet",
    "Problem",
    "Record",
    "Split",
    "SplitFiles",
    "SplitSummary",
    "check_splits",
    "find_splits",
    "fingerprint",
    "read_labels",
    "read_split",
    "summarise",
]
