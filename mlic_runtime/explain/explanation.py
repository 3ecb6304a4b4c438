"""`Explanation`: everything that a page about one prediction shows, as plain values."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Pixels

MAX_EXPLAINED = 6  # labels with a heat map of their own
MOST_PROBABLE = 3  # that are explained where no label was predicted

CONTRIBUTIONS, OCCLUSION = "contributions", "occlusion"
_METHODS = {
    CONTRIBUTIONS: "contributions",
    OCCLUSION: "occlusion, since this package has no evidence outputs",
}
_MEANINGS = {
    CONTRIBUTIONS: (
        "A number is the part of a label's logit that a place of the picture or a word contributes: above zero it "
        "speaks for the label, below zero against it. All numbers of a label and its rest add up to its logit; each "
        "place and each word has also seen its surroundings."
    ),
    OCCLUSION: (
        "A number is by how much a label's logit falls when a place of the picture is covered with grey or a word is "
        "left out: above zero it speaks for the label, below zero against it. Each was measured alone, so they do not "
        "add up to the logit."
    ),
}
_VIEWS = {
    "stretch": "stretched to its size",
    "crop": "cut out of the middle, at its size",
}


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label of a prediction: `probability` and `threshold` are in [0, 1], or None where they are not known."""

    name: str
    probability: float | None
    threshold: float | None
    predicted: bool


@dataclass(frozen=True, slots=True, eq=False)
class LabelEvidence:
    """What speaks for and against one label, in logits: `picture` float32 (h, w), `words` float32 (W,), or None.

    `rest` is the logit without them; None where they are not parts of it.
    """

    name: str
    picture: npt.NDArray[np.float32] | None
    words: npt.NDArray[np.float32] | None
    rest: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A prediction with its evidence.

    Attributes:
        image: the path of the picture, or another name; None without one.
        caption: the caption; None without one.
        model: "name@version".
        method: "contributions" or "occlusion".
        resize: how the picture became `pixels`: "stretch", "crop", or None if that is not known.
        pixels: the picture as the model saw it, uint8 (H, W, 3); None without one.
        spans: where each of the W words begins and ends in the caption, in characters.
        scores: of the labels, most probable first.
        evidence: of the labels that are explained, at least one.
        unexplained: how many predicted labels are not in `evidence`.
    """

    image: str | None
    caption: str | None
    model: str
    method: str
    resize: str | None
    pixels: Pixels | None
    spans: tuple[tuple[int, int], ...]
    scores: tuple[LabelScore, ...]
    evidence: tuple[LabelEvidence, ...]
    unexplained: int

    @property
    def method_text(self) -> str:
        """What the method is, for people."""
        return _METHODS[self.method]

    @property
    def meaning(self) -> str:
        """What the numbers mean, for people."""
        return _MEANINGS[self.method]

    @property
    def view(self) -> str:
        """What the picture that is shown is, for people."""
        seen = "the picture as the model saw it"
        if self.pixels is None or self.resize is None:
            return seen
        height, width = self.pixels.shape[:2]
        return f"{seen}: {_VIEWS[self.resize]}, {width} x {height} pixels"

    def title_of(self, name: str) -> str:
        """Return a label with what the model says about it, such as "cat 0.97, predicted"."""
        score = next((score for score in self.scores if score.name == name), None)
        if score is None:
            return name
        number = "" if score.probability is None else f" {score.probability:.2f}"
        return f"{name}{number}, {'predicted' if score.predicted else 'not predicted'}"

    def picture_scale(self) -> float:
        """Return the largest absolute number of all heat maps, so that one legend fits them all; 0 without any."""
        return max((float(np.abs(each.picture).max()) for each in self.evidence if each.picture is not None), default=0)

    def word_scale(self) -> float:
        """Return the largest absolute number of all words."""
        found = [each.words for each in self.evidence if each.words is not None and len(each.words)]
        return max((float(np.abs(words).max()) for words in found), default=0.0)

    def pieces(self) -> Iterator[tuple[str, int | None]]:
        """Yield the caption in pieces, each with the number of its word; None for what stands between words.

        What follows the last word that the model read comes last, as a piece of its own.
        """
        caption, end = self.caption or "", 0
        for number, (start, stop) in sorted(enumerate(self.spans), key=lambda item: item[1]):
            start = max(start, end)  # a tokenizer may let words overlap
            if start > end:
                yield caption[end:start], None
            if stop > start:
                yield caption[start:stop], number
            end = max(end, stop)
        if end < len(caption):
            yield caption[end:], None


def sides(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the sums of the numbers above and below zero."""
    return float(values[values > 0].sum()), float(values[values < 0].sum())
