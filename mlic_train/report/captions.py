"""How long captions are, and which occur again."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mlic_train.data import Split

from .html import paragraph, table
from .plots import render
from .split_style import outlines
from .wording import count, listing, quoted, share, shorten

_LISTED = 15
_ENOUGH = 30  # captions; the median of fewer says little about a split


@dataclass(frozen=True)
class Repeated:
    """Captions that occur more than once.

    Attributes:
        counts: for (earlier split, later split), the captions of the later one that the earlier one has too; for
            (split, split), those that occurred in it before.
        texts: each caption that occurs more than once, with how often in each split; those in most splits and then the
            most frequent first.
    """

    counts: Counter[tuple[str, str]]
    texts: list[tuple[str, dict[str, int]]]


def captions_of(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """All captions of every split."""
    return {name: [text for record in split.records for text in record.captions] for name, split in splits.items()}


def find_repeated(captions: Mapping[str, list[str]]) -> Repeated:
    """Captions that are the same but for upper and lower case and the punctuation at their end."""
    first: dict[str, str] = {}
    found: dict[str, dict[str, int]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for split, texts in captions.items():
        for text in texts:
            key = text.casefold().rstrip(" .!?…")
            first.setdefault(key, text)
            seen = found.setdefault(key, {})
            counts.update((other, split) for other in seen)
            seen[split] = seen.get(split, 0) + 1
    repeated = [(first[key], seen) for key, seen in found.items() if sum(seen.values()) > 1]
    repeated.sort(key=lambda item: (-len(item[1]), -sum(item[1].values()), item[0]))
    return Repeated(counts, repeated)


def repeated_parts(captions: Mapping[str, list[str]], repeated: Repeated) -> list[str]:
    """The captions that occur again, those of several splits first."""
    if not repeated.texts:
        return [paragraph(f"All {count(sum(map(len, captions.values())), 'caption')} differ from each other.")]
    across = [item for item in repeated.texts if len(item[1]) > 1]
    text = (
        f"{count(len(repeated.texts), 'caption')} {'occurs' if len(repeated.texts) == 1 else 'occur'} more than once, "
    )
    text += f"{len(across):,} of them in more than one split. "
    # A caption of two words may well be written twice; a long one hardly is.
    long = [item for item in across if len(item[0].split()) > 10]
    if long:
        longest = min(long, key=lambda item: (-len(item[0]), item[0]))[0]
        text += (
            f"{len(long):,} of these {'has' if len(long) == 1 else 'have'} more than ten words, as {quoted(longest)} "
            "has: the longer a caption, the less likely is it that two people wrote it of two pictures."
        )
    elif across:
        text += "None of these has more than ten words: short captions are often written twice."
    rows = [
        [shorten(item[0], 120), *(item[1].get(split, 0) for split in captions)] for item in repeated.texts[:_LISTED]
    ]
    return [paragraph(text), table(["caption", *captions], rows)]


def caption_length_parts(splits: Mapping[str, Split], captions: Mapping[str, list[str]]) -> list[str]:
    """How many words captions have, and how many captions a row has."""
    lengths = {split: np.array([len(text.split()) for text in texts]) for split, texts in captions.items() if texts}
    every = np.concatenate(list(lengths.values()))
    middle, high = (int(value) for value in np.percentile(every, [50, 95], method="inverted_cdf"))
    text = f"Half of the {count(len(every), 'caption')} have at most {middle} words, 95 % at most {high}; "
    text += f"the longest has {every.max():,}. "
    without = {name: sum(not record.captions for record in split.records) for name, split in splits.items()}
    if any(without.values()):
        parts = [f"{share(number, len(splits[name].records))} of {name}" for name, number in without.items()]
        text += f"Rows without a caption: {listing(parts)}. "
    else:
        text += "Every row has a caption. "
    medians = {name: float(np.median(values)) for name, values in lengths.items()}
    low, top = min(medians, key=lambda name: medians[name]), max(medians, key=lambda name: medians[name])
    if min(len(lengths[low]), len(lengths[top])) >= _ENOUGH and medians[top] >= 1.25 * medians[low]:
        text += (
            f"Captions of {top} are longer than those of {low} (median {medians[top]:g} against {medians[low]:g} "
            "words): they may come from different writers."
        )
    # A single caption of a thousand words would press all others into one bar.
    end = int(np.percentile(every, 99.5, method="inverted_cdf")) + 1
    bins = [edge + 0.5 for edge in range(0, end + 1, max(1, end // 60))]
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    outlines(axes, {name: values.tolist() for name, values in lengths.items()}, bins)
    axes.set(xlabel="words of a caption", ylabel="% of the split's captions")
    axes.legend(frameon=False)
    left_out = int((every > bins[-1]).sum())
    note = f" Not drawn: {count(left_out, 'caption')} of more than {int(bins[-1])} words." if left_out else ""
    per_row = _captions_per_row(splits)
    return [
        paragraph(text + note),
        paragraph(per_row),
        render(figure, "Distribution of the words of a caption, for every split"),
    ]


def _captions_per_row(splits: Mapping[str, Split]) -> str:
    if all(len(record.captions) <= 1 for split in splits.values() for record in split.records):
        return "No row has more than one caption."
    numbers = {
        name: [len(record.captions) for record in split.records if record.captions] for name, split in splits.items()
    }
    parts = [
        f"{sum(values) / len(values):.2f} in {name} (at most {max(values)})"
        for name, values in numbers.items()
        if values
    ]
    return f"Captions per row that has any: {listing(parts)}."
