"""The words that tell a label from the others: TF-IDF, as bars and as a word cloud."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlic_runtime.base.progress import progress_bar
from mlic_train.data import Split

from .page import Picture, Plot, Section, drawing, facts, left_out, table
from .plots import drawable, plot

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


def label_words(split: Split, most: int = _CLOUD) -> list[LabelWords]:
    """Return for each label the words whose mean TF-IDF in its rows most exceeds that in all other rows that know it.

    A row's captions are one document. Left out are English function words and, in data of 50 rows or more, words of a
    single row.

    Returns:
        At most `most` words per label, all with a positive difference; no label where no caption has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped] # ships no types

    rows = [record for record in split.records if record.captions and record.labels is not None]
    vectorizer = TfidfVectorizer(
        stop_words="english", min_df=2 if len(rows) >= 50 else 1, max_features=_VOCABULARY, dtype=np.float32
    )
    try:
        weights = vectorizer.fit_transform([" ".join(record.captions) for record in rows])  # sparse (N, V)
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return []
    vocabulary = vectorizer.get_feature_names_out()
    members = np.zeros((len(split.labels), len(rows)), dtype=np.float64)  # (L, N)
    for index, record in enumerate(rows):
        members[list(record.labels or ()), index] = 1
    inside = np.asarray((weights.T @ members.T).T)  # (L, V)
    total = np.asarray(weights.sum(axis=0, dtype=np.float64)).reshape(1, -1)
    known = np.full((len(split.labels), 1), len(rows))
    if any(record.unknown for record in rows):
        unknown = np.zeros_like(members)
        for index, record in enumerate(rows):
            unknown[list(record.unknown), index] = 1
        total = total - np.asarray((weights.T @ unknown.T).T)
        known = known - unknown.sum(axis=1, keepdims=True).astype(np.int64)
    sizes = members.sum(axis=1, keepdims=True)
    excess = inside / np.maximum(sizes, 1) - (total - inside) / np.maximum(known - sizes, 1)
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


def word_sections(split: Split) -> list[Section]:
    """Return the sections on the words of each label, and on their word clouds."""
    labels = label_words(split)
    known = [label for label in labels if label.words]
    if not known:
        reason = "no labelled caption of train has a word that tells labels apart"
        return [left_out(title, reason) for title in ("Words of each label", "Word clouds")]
    return [_words_section(labels, known), _clouds_section(known)]


def _words_section(labels: Sequence[LabelWords], known: Sequence[LabelWords]) -> Section:
    first = {label.name: label.words[0][0] for label in known}
    rows: list[dict[str, object]] = []
    for label in labels:
        word = first.get(label.name)
        others = [name for name, other in first.items() if other == word and name != label.name]
        row = {"label": label.name, "captioned rows": label.rows, "first word": word or "none"}
        row["part of the name"] = "yes" if word in label.name.casefold().split() else "no"
        rows.append(row | {"first word of these labels too": ", ".join(others)})
    own = sum(row["part of the name"] == "yes" for row in rows)
    step = _COLUMNS * _LINES
    return Section(
        "Words of each label",
        "A bar is the mean TF-IDF of a word in the label's captions in train, less that in all other captions: a word "
        "that does not belong to its label names something that often comes with it.",
        [
            *(_bars(known[start : start + step]) for start in range(0, len(known), step)),
            facts([("labels whose first word is part of their name", f"{own:,} of {len(labels):,}")]),
            table(rows),
        ],
    )


def _bars(labels: Sequence[LabelWords]) -> Plot:
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
    return plot(figure, f"Words that tell the labels apart. {alt}")


def _clouds_section(known: Sequence[LabelWords]) -> Section:
    clouds = []
    with progress_bar("word clouds") as show:
        for done, label in enumerate(known, start=1):
            frequencies = {word: value for word, value in label.words[:_CLOUD] if len(word) <= _LONGEST}
            if frequencies:
                clouds.append(_cloud(label, frequencies))
            show(done, len(known))
    caption = f"The larger a word, the more it stands out; words of more than {_LONGEST} characters are left out."
    return Section("Word clouds", caption, clouds)


def _cloud(label: LabelWords, frequencies: dict[str, float]) -> Picture:
    from wordcloud import WordCloud  # type: ignore[import-untyped] # ships no types

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
    return drawing(cloud.to_image(), f"{label.name} ({label.rows:,})", alt)


def _colour(*_: object, random_state: Random, **__: object) -> str:
    # Given, so that wordcloud does not import pyplot for a colour map.
    return random_state.choice(("#332288", "#117733", "#882255", "#225588", "#994400", "#444444"))
