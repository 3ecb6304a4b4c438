"""Data sets: what `mlic_runtime.annotations` reads becomes records; they are checked, and written as shards."""

from mlic_runtime.annotations.folder import SplitFiles, find_splits
from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import PROBLEM_KINDS, Problem, ProblemCount
from mlic_runtime.annotations.source.archive import Archive
from mlic_runtime.annotations.source.members import Member
from mlic_runtime.annotations.source.parquet import ParquetPicture

from .check import check_splits
from .reader import read_labels, read_split
from .records import Record, Split, reading_picture_of
from .summary import SplitSummary, fingerprint, summarise

__all__ = [
    "PROBLEM_KINDS",
    "Archive",
    "LabelSet",
    "Member",
    "ParquetPicture",
    "Problem",
    "ProblemCount",
    "Record",
    "Split",
    "SplitFiles",
    "SplitSummary",
    "check_splits",
    "find_splits",
    "fingerprint",
    "read_labels",
    "read_split",
    "reading_picture_of",
    "summarise",
]
