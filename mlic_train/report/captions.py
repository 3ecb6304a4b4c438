"""How long captions are, and which occur again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_train.data import Split

from .page import Section, Table, facts, left_out, side_by_side
from .plots import draw_histograms, plot
from .text import share, shorten

_LISTED = 15
_LONG = 10  # words; a caption of two words may well be written twice, a longer one hardly is


@dataclass(frozen=True)
class RepeatedCaptions:
    """Captions that occur more than once.

    Attributes:
        counts: for (earlier split, later split), the captions of the later one that the earlier one has too; for
            (split, split), those that occurred in it before.
        texts: each caption that occurs more than once, with how often in each split; captions of most splits first,
            then the most frequent.
    """

    counts: Counter[tuple[str, str]]
    texts: list[tuple[str, dict[str, int]]]


def captions_of(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """Return all captions of every split."""
    return {name: [text for record in split.records for text in record.captions] for name, split in splits.items()}


def find_repeated(captions: Mapping[str, list[str]]) -> RepeatedCaptions:
    """Find captions that are the same except for upper and lower case and the punctuation at their end."""
    first: dict[str, str] = {}
    by_key: dict[str, dict[str, int]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for split, texts in captions.items():
        for text in texts:
            key = text.casefold().rstrip(" .!?…")
            first.setdefault(key, text)
            times = by_key.setdefault(key, {})
            counts.update((other, split) for other in times)
            times[split] = times.get(split, 0) + 1
    repeated = [(first[key], times) for key, times in by_key.items() if sum(times.values()) > 1]
    repeated.sort(key=lambda item: (-len(item[1]), -sum(item[1].values()), item[0]))
    return RepeatedCaptions(counts, repeated)


def repeated_section(captions: Mapping[str, list[str]], repeated: RepeatedCaptions) -> Section:
    """Return the captions that occur again, those of several splits first."""
    title = "Captions that occur again"
    if not any(captions.values()):
        return left_out(title, "there is no caption")
    across = [text for text, times in repeated.texts if len(times) > 1]
    long = [text for text in across if len(text.split()) > _LONG]
    counts = [
        ("captions", sum(map(len, captions.values()))),
        ("occur more than once", len(repeated.texts)),
        ("of these in more than one split", f"{len(across):,} of {len(repeated.texts):,}"),
        (f"of these with more than {_LONG} words", f"{len(long):,} of {len(across):,}"),
    ]
    if long:
        counts.append(("the longest", shorten(min(long, key=lambda text: (-len(text), text)))))
    rows = [
        (shorten(text, 120), *(times.get(split, 0) for split in captions)) for text, times in repeated.texts[:_LISTED]
    ]
    caption = "The longer a caption, the less likely is it that two people wrote it of two pictures."
    return Section(title, caption, ([Table(("caption", *captions), rows)] if rows else []) + [facts(counts)])


def caption_length_section(splits: Mapping[str, Split], captions: Mapping[str, list[str]]) -> Section:
    """Return how many words captions have, and how many captions a row has."""
    title = "Caption lengths"
    if not any(captions.values()):
        return left_out(title, "there is no caption")
    lengths = {split: np.array([len(text.split()) for text in texts]) for split, texts in captions.items() if texts}
    every = np.concatenate(list(lengths.values()))
    # A single caption of a thousand words would press all others into one bar.
    end = int(np.percentile(every, 99.5, method="inverted_cdf")) + 1
    bins = [edge + 0.5 for edge in range(0, end + 1, max(1, end // 60))]
    per_row = {name: [len(record.captions) for record in split.records] for name, split in splits.items()}
    per_row["all"] = [count for rows in per_row.values() for count in rows]
    words = {**lengths, "all": every}
    columns = {name: _length_facts(words.get(name), rows, int(bins[-1])) for name, rows in per_row.items()}
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    draw_histograms(axes, {name: values.tolist() for name, values in lengths.items()}, bins)
    axes.set(xlabel="words of a caption", ylabel="% of the split's captions")
    axes.legend(frameon=False)
    return Section(
        title,
        "Splits whose captions differ much in length may come from different writers.",
        [side_by_side(columns), plot(figure, "Distribution of the words of a caption, for every split")],
    )


def _length_facts(words: npt.NDArray[np.int64] | None, per_row: Sequence[int], drawn: int) -> dict[str, object]:
    """Return the facts on the captions of one split.

    Args:
        words: int (N), the words of each caption; None without a caption.
        per_row: the captions of each row.
        drawn: captions of more words than that are not drawn.
    """
    result: dict[str, object] = {"rows without a caption": share(per_row.count(0), len(per_row))}
    if words is not None:
        median, high = np.percentile(words, [50, 95], method="inverted_cdf")
        result |= {
            "captions": len(words),
            "words, median": int(median),
            "words, at most, of 95 %": int(high),
            "words, at most": int(words.max()),
            f"not drawn: more than {drawn:,} words": int((words > drawn).sum()),
            "captions of a row that has any, on average": f"{len(words) / sum(map(bool, per_row)):.2f}",
            "captions of a row, at most": max(per_row),
        }
    return result
