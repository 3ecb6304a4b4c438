"""The words that tell a label from the others: TF-IDF, as bars and as a word cloud."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_train.data import Split

from .html import drawing, paragraph
from .plots import drawable, render
from .wording import count, listing, quoted

_VOCABULARY = 20_000  # words; bounds memory, words beyond it are in hardly any caption
_BARS = 10
_CLOUD = 40
_LONGEST = 30  # characters of a word in a cloud; a longer one has no room in it
_COLUMNS, _LINES = 4, 5  # panels of one figure: one of a hundred panels takes minutes to lay out
_CLOUD_SIZE = (330, 200)  # pixels, width and height


@dataclass(frozen=True)
class LabelWords:
    """The words of one label, best first, with how much their mean TF-IDF in its rows exceeds that in the others."""

    name: str
    rows: int
    words: tuple[tuple[str, float], ...]


def label_words(split: Split, most: int = _CLOUD) -> list[LabelWords] | None:
    """For each label, the words whose mean TF-IDF in the label's rows most exceeds that in all other rows.

    A row's captions are one document. Left out are English function words and, in data of 50 rows or more, words of a
    single row.

    Returns:
        At most `most` words per label, all with a positive difference; None where no caption has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped] # ships no types

    rows = [record for record in split.records if record.captions and record.labels is not None]
    vectorizer = TfidfVectorizer(
        stop_words="english", min_df=2 if len(rows) >= 50 else 1, max_features=_VOCABULARY, dtype=np.float32
    )
    try:
        weights = vectorizer.fit_transform([" ".join(record.captions) for record in rows])  # sparse (N, V)
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return None
    vocabulary = vectorizer.get_feature_names_out()
    members = np.zeros((len(split.labels), len(rows)), dtype=np.float64)  # (L, N)
    for index, record in enumerate(rows):
        members[list(record.labels or ()), index] = 1
    inside = np.asarray((weights.T @ members.T).T)  # (L, V)
    total = np.asarray(weights.sum(axis=0, dtype=np.float64)).reshape(1, -1)
    sizes = members.sum(axis=1, keepdims=True)
    excess = inside / np.maximum(sizes, 1) - (total - inside) / np.maximum(len(rows) - sizes, 1)
    return [
        LabelWords(name, int(size), _best(vocabulary, values, most))
        for name, size, values in zip(split.labels.names, sizes[:, 0], excess, strict=True)
    ]


def _best(
    vocabulary: npt.NDArray[np.str_], values: npt.NDArray[np.float64], most: int
) -> tuple[tuple[str, float], ...]:
    # The vocabulary is sorted, so that of equal words the first in the alphabet comes first. Rounded, because sums of
    # equal numbers differ in their last digits by the order of the rows.
    order = np.argsort(-values.round(9), kind="stable")[:most]
    return tuple((str(vocabulary[k]), float(values[k])) for k in order if values[k] > 1e-9)


def words_parts(found: Sequence[LabelWords], split: str) -> list[str]:
    """The best words of every label as bars."""
    with_words = [label for label in found if label.words]
    text = (
        f"Of the captions of {split}: the words whose mean TF-IDF in the rows of a label most exceeds that in all "
        "other rows (the length of a bar). A word that does not belong to its label speaks of something that often "
        "comes with it, and a model can take the one for the other. "
    )
    named = [label for label in with_words if label.words[0][0] in label.name.casefold().split()]
    text += f"The first word is (part of) the label's own name for {len(named):,} of {count(len(found), 'label')}. "
    shared = _shared_first_words(with_words)
    if shared:
        text += f"Labels that have their first word in common cannot be told apart by it: {listing(shared)}. "
    missing = [label.name for label in found if not label.words]
    if missing:
        text += f"No word stands out for {listing(list(map(quoted, missing)), 8)}."
    step = _COLUMNS * _LINES
    return [paragraph(text), *(_bars(with_words[k : k + step]) for k in range(0, len(with_words), step))]


def _shared_first_words(labels: Sequence[LabelWords]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(label.words[0][0], []).append(label.name)
    return [f"{listing(names)} ({quoted(word)})" for word, names in groups.items() if len(names) > 1]


def _bars(labels: Sequence[LabelWords]) -> str:
    columns = min(_COLUMNS, len(labels))
    lines = -(-len(labels) // columns)
    figure = Figure(figsize=(2.7 * columns, 1.95 * lines), layout="constrained")
    for place, label in enumerate(labels, start=1):
        axes = figure.add_subplot(lines, columns, place)
        best = label.words[:_BARS]
        axes.barh(range(len(best)), [value for _, value in best], color="#4477aa")
        axes.set_yticks(range(len(best)), [drawable(word, 16) for word, _ in best], fontsize=7)
        axes.set_ylim(_BARS - 0.5, -0.5)
        axes.set_title(f"{drawable(label.name)} ({label.rows:,} rows)", fontsize=8)
        axes.tick_params(axis="x", labelsize=6)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
    alt = ". ".join(f"{label.name}: {', '.join(word for word, _ in label.words[:_BARS])}" for label in labels)
    return render(figure, f"Words that tell the labels apart. {alt}")


def cloud_parts(found: Sequence[LabelWords], progress: Callable[[int, int], None]) -> list[str]:
    """A word cloud for every label that has words."""
    parts = [paragraph("The same words, up to 40 of a label; the larger, the more it stands out.")]
    with_words = [label for label in found if label.words]
    for done, label in enumerate(with_words, start=1):
        parts.append(_cloud(label))
        progress(done, len(with_words))
    return parts


def _cloud(label: LabelWords) -> str:
    from wordcloud import WordCloud  # type: ignore[import-untyped] # ships no types

    frequencies = {word: value for word, value in label.words[:_CLOUD] if len(word) <= _LONGEST}
    if not frequencies:
        return paragraph(f"{label.name}: all words are longer than {_LONGEST} characters.")
    cloud = WordCloud(
        width=_CLOUD_SIZE[0],
        height=_CLOUD_SIZE[1],
        background_color="white",
        # The font with the most characters that is installed with the dependencies.
        font_path=str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")),
        color_func=_colour,
        max_font_size=60,
        random_state=0,
    ).generate_from_frequencies(frequencies)
    alt = f"Word cloud of {label.name}: {', '.join(frequencies)}"
    return drawing(cloud.to_image(), f"{label.name} ({count(label.rows, 'row')})", alt)


def _colour(*_: object, random_state: Random, **__: object) -> str:
    # Given, so that wordcloud does not import pyplot for a colour map.
    return random_state.choice(("#332288", "#117733", "#882255", "#225588", "#994400", "#444444"))
