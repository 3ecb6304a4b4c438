"""Where in a picture, and which word, a prediction comes from: `Evidence`, by the graph itself or by occlusion."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.graph.session import GraphEvidence

Spans = Sequence[tuple[int, int] | None]
Run = Callable[[Pixels, Tokens | None, Tokens | None], Logits]

OCCLUSION_CELLS = 7  # a side: 49 copies of the picture, each without one cell
_GREY = 128  # what hides a cell; black would say "no picture" where all is hidden


@dataclass(frozen=True, eq=False)
class Evidence:
    """What each place of a picture and each word of a caption adds to the logit of each label.

    With method "contributions" they are parts of the logit, from the graph's own outputs: they and `rest` add up to
    it. The part of a place is exact in the features of that place, the part of a word in the states of its tokens; both
    have seen their surroundings. With "occlusion" each number is by how much the logit falls when the place is covered
    with grey or the word is left out (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks");
    they do not add up.

    Attributes:
        method: "contributions" or "occlusion".
        picture: {label: float32 (h, w)} in logits, over the picture as the model saw it, row by row from the top left;
            None without a picture.
        words: the words of the caption, as they stand in it; () without a caption.
        spans: where each word begins and ends in the caption, in characters.
        caption: {label: float32 (W,)} in logits, one for each word; None without a caption.
        rest: {label: the logit minus all of the above}; {} with "occlusion".
        pixels: the picture as the model saw it, uint8 (H, W, 3); None without a picture, or where it was not kept.
    """

    method: str
    picture: dict[str, npt.NDArray[np.float32]] | None
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    caption: dict[str, npt.NDArray[np.float32]] | None
    rest: dict[str, float]
    pixels: Pixels | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the same content without `pixels`, ready for `json.dumps`: lists in place of arrays.

        Each number is the shortest that is read back as the same float32.
        """
        return {
            "method": self.method,
            "picture": None if self.picture is None else _lists(self.picture),
            "words": list(self.words),
            "spans": [list(span) for span in self.spans],
            "caption": None if self.caption is None else _lists(self.caption),
            "rest": dict(self.rest),
        }


def from_graph(
    graph: GraphEvidence, row: int, labels: Sequence[str], caption: str | None, spans: Spans, has_picture: bool
) -> Evidence:
    """Return the evidence that a graph gave for one row.

    Args:
        graph: the outputs for a batch.
        row: its place in the batch.
        labels: L names.
        caption: the caption; None without one.
        spans: where the word of each token stands in the caption; None for special tokens. Tokens of one word have the
            same span, and their contributions are added up.
        has_picture: whether the row has a picture.
    """
    picture = graph.picture[row] if has_picture else None
    words = list(dict.fromkeys(span for span in spans if span is not None))
    by_word = np.zeros((len(labels), len(words)), dtype=np.float32)
    if graph.caption is not None:
        for token, span in enumerate(spans):
            if span is not None:
                by_word[:, words.index(span)] += graph.caption[row, :, token]
    found = by_word.sum(axis=1) + (0.0 if picture is None else picture.sum(axis=(1, 2)))
    rest = {label: float(value) for label, value in zip(labels, graph.logits[row] - found, strict=True)}
    return _make("contributions", labels, picture, caption, words, by_word, rest)


def by_occlusion(
    run: Run,
    pixels: Pixels,
    input_ids: Tokens | None,
    attention_mask: Tokens | None,
    labels: Sequence[str],
    caption: str | None,
    spans: Spans,
    has_picture: bool,
) -> Evidence:
    """Measure the evidence for one row by hiding one part of it after the other, all in one batch.

    Args:
        run: the graph.
        pixels: uint8 (1, H, W, 3).
        input_ids: int64 (1, T); None for a model that reads no caption.
        attention_mask: int64 (1, T).
        labels: see `from_graph`.
        caption: see `from_graph`.
        spans: see `from_graph`.
        has_picture: see `from_graph`.
    """
    words = list(dict.fromkeys(span for span in spans if span is not None)) if input_ids is not None else []
    # Without its only word a row has no caption, and without a picture nothing: the graph takes that as well.
    side = OCCLUSION_CELLS if has_picture else 0
    batch = np.repeat(pixels, 1 + side * side + len(words), axis=0)
    for cell in range(side * side):
        cover(batch[1 + cell], (side, side), [cell])
    ids = mask = None
    if input_ids is not None and attention_mask is not None:
        ids, mask = (np.repeat(each, len(batch), axis=0) for each in (input_ids, attention_mask))
        for number, word in enumerate(words, start=1 + side * side):
            leave_out(ids[number], mask[number], spans, [word])
    logits = run(batch, ids, mask)
    fall = logits[0] - logits[1:]
    picture = fall[: side * side].T.reshape(len(labels), side, side) if has_picture else None
    return _make("occlusion", labels, picture, caption, words, fall[side * side :].T, {})


def cover(pixels: Pixels, grid: tuple[int, int], cells: Collection[int]) -> None:
    """Paint cells of a picture grey.

    Args:
        pixels: uint8 (H, W, 3); it is changed.
        grid: (h, w), into how many cells the picture is cut.
        cells: their numbers, row by row from the top left.
    """
    rows, columns = (
        np.linspace(0, size, parts + 1).astype(int) for size, parts in zip(pixels.shape, grid, strict=False)
    )
    for cell in cells:
        y, x = divmod(cell, grid[1])
        pixels[rows[y] : rows[y + 1], columns[x] : columns[x + 1]] = _GREY


def leave_out(input_ids: Tokens, attention_mask: Tokens, spans: Spans, words: Collection[tuple[int, int]]) -> None:
    """Remove the tokens of words from a caption; what follows moves up. Without any word there is no caption.

    Args:
        input_ids: int64 (T,); it is changed, and so is
        attention_mask: int64 (T,).
        spans: of the tokens, see `from_graph`.
        words: spans of the words.
    """
    kept = [token for token, span in enumerate(spans) if span is None or span not in words]
    ids, mask = input_ids[kept], attention_mask[kept]
    input_ids[:], attention_mask[:] = 0, 0
    if any(spans[token] is not None for token in kept):
        input_ids[: len(kept)], attention_mask[: len(kept)] = ids, mask


def _lists(parts: dict[str, npt.NDArray[np.float32]]) -> dict[str, Any]:
    return {label: _shortest(part) for label, part in parts.items()}


def _shortest(values: npt.NDArray[np.float32]) -> list[Any]:
    return [float(str(value)) if values.ndim == 1 else _shortest(value) for value in values]


def _make(
    method: str,
    labels: Sequence[str],
    picture: npt.NDArray[np.float32] | None,
    caption: str | None,
    words: Sequence[tuple[int, int]],
    by_word: npt.NDArray[np.float32],
    rest: dict[str, float],
) -> Evidence:
    return Evidence(
        method=method,
        picture=None if picture is None else dict(zip(labels, picture, strict=True)),
        words=tuple((caption or "")[start:end] for start, end in words),
        spans=tuple(words),
        caption=dict(zip(labels, by_word, strict=True)) if words else None,
        rest=rest,
    )
