"""Reading and checking data: CSV, the competition's own CSV, COCO, JSON lines and shards become records.

{shard_names, tar} <- members <- records <- source <- labels <- {csv_format <- competition, coco, jsonl <- shards} <-
reader <- summary <- {check, shard_writer}
"""

from .check import SplitInput, check_splits
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
    "SplitInput",
    "SplitSummary",
    "check_splits",
    "find_splits",
    "fingerprint",
    "read_labels",
    "read_split",
    "summarise",
]
