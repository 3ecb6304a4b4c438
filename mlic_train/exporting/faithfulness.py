"""Faithfulness: is what a graph says about where a logit comes from true of the graph?

Deletion. The k most positive places (or words) of a predicted label are hidden, and the graph runs again. With z the
logit, P the hidden ones and R as many random ones:

    deletion = z(x) - z(x without P)        random = z(x) - z(x without R), the mean over draws of R

Evidence that points to what the graph uses has a deletion far above random. This is the test of Samek et al. 2017
("Evaluating the Visualization of What a Deep Neural Network Has Learned"), the deletion metric of Petsiuk et al. 2018
("RISE") at one point, and for words the comprehensiveness of DeYoung et al. 2020 ("ERASER"), here in logits. k is a
fifth of the places, or of the words, rounded, at least one.

Agreement with occlusion. Each place (or word) is hidden alone; Spearman's rank correlation between the falls of the
logit and the evidence, 1 for the same order, 0 for none. Occlusion also sees what the evidence leaves in the rest of a
logit, and hides a place from its neighbours too, so 1 is not to be expected.

A hidden place is grey, a hidden word is left out, as in `mlic_runtime.predict.evidence`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.graph.session import PIXELS, GraphEvidence
from mlic_runtime.predict.evidence import cover, from_graph, leave_out
from mlic_runtime.predict.prediction import decide, sigmoid
from mlic_train.data import Record
from mlic_train.runs.folder import TrainedModel

from .inputs import draw_rows, make_inputs

ROWS = 100
OCCLUDED_ROWS = 25  # of these; hiding each place alone takes one run for each
_SHARE = 0.2  # of the places or words that deletion hides
_DRAWS = 5  # of random ones
_BATCH = 16
_SEED = 0


class Explaining(Protocol):
    """What is measured: a `GraphSession` that explains."""

    def run(self, pixels: Pixels, input_ids: Tokens | None = None, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits; see `GraphSession.run`."""

    def explain(
        self, pixels: Pixels, input_ids: Tokens | None = None, attention_mask: Tokens | None = None
    ) -> GraphEvidence:
        """Return the logits and where they come from; see `GraphSession.explain`."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row: `pixels` uint8 (H, W, 3), None without a picture, and the caption, None without one."""

    pixels: Pixels | None
    caption: str | None


def faithfulness_on(trained: TrainedModel, session: Explaining, records: Sequence[Record]) -> dict[str, float | int]:
    """Measure on at most ROWS records, always the same ones, those with pictures first; see `measure_faithfulness`."""
    drawn = draw_rows(trained, records, ROWS)
    pixels = [each for batch in make_inputs(trained, drawn, ("both",)) for each in batch[PIXELS]]
    rows = [
        Row(
            None if record.image is None else picture.astype(np.uint8, copy=False),
            record.captions[0] if record.captions and trained.config.model.reads_captions else None,
        )
        for record, picture in zip(drawn, pixels, strict=True)
    ]
    size = trained.config.model.image_size
    return measure_faithfulness(session, trained.caption_tokenizer, rows, trained.state.thresholds, size)


def measure_faithfulness(
    session: Explaining,
    tokenizer: CaptionTokenizer | None,
    rows: Sequence[Row],
    thresholds: Sequence[float],
    image_size: int,
    occluded_rows: int = OCCLUDED_ROWS,
) -> dict[str, float | int]:
    """Measure deletion and agreement with occlusion, as means over rows and their predicted labels.

    Args:
        session: the graph.
        tokenizer: its tokenizer; None if it reads no captions.
        rows: rows without a predicted label are not used.
        thresholds: of the L labels.
        image_size: side of `pixels`, for rows without a picture.
        occluded_rows: how many of the rows with a predicted label agreement is measured on.

    Returns:
        {"rows": used, "occluded_rows": of these for agreement, and for each of "picture" and "caption" with anything
        to measure: "picture_labels": how many predicted labels, "picture_deletion", "picture_random" in logits,
        "picture_occlusion_correlation" in [-1, 1]}. Captions of one word are not used.
    """
    generator = np.random.default_rng(_SEED)
    found: dict[str, list[float]] = {}
    used = 0
    names = [str(index) for index in range(len(thresholds))]
    for row in rows:
        pixels = np.zeros((1, image_size, image_size, 3), np.uint8) if row.pixels is None else row.pixels[None]
        tokens = () if tokenizer is None else tokenizer.encode([row.caption])
        spans = [] if tokenizer is None else tokenizer.spans(row.caption)
        graph = session.explain(pixels, *tokens)
        labels = np.flatnonzero(decide(sigmoid(graph.logits), thresholds)[0])
        if not len(labels):
            continue
        used += 1
        evidence = from_graph(graph, 0, names, row.caption, spans, row.pixels is not None)
        subject = _Subject(session, pixels, tokens, spans, graph.picture.shape[2:], evidence.spans)
        parts = {}
        if evidence.picture is not None:
            parts["picture"] = np.stack([evidence.picture[names[label]].ravel() for label in labels])
        if evidence.caption is not None and len(evidence.spans) > 1:
            parts["caption"] = np.stack([evidence.caption[names[label]] for label in labels])
        for what, values in parts.items():
            _delete(subject, what, values, labels, graph.logits[0, labels], generator, found)
            if used <= occluded_rows and values.shape[1] > 2:
                alone = subject.without(what, [[each] for each in range(values.shape[1])])
                falls = graph.logits[0, labels] - alone[:, labels]  # (n, labels)
                for value, fall in zip(values, falls.T, strict=True):
                    found.setdefault(f"{what}_occlusion_correlation", []).append(rank_correlation(value, fall))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    counts = {
        f"{what}_labels": len(found[f"{what}_deletion"])
        for what in ("picture", "caption")
        if f"{what}_deletion" in found
    }
    return {"rows": used, "occluded_rows": min(used, occluded_rows), **counts, **means}


def summarise(measured: Mapping[str, float | int]) -> str:
    """Return what `measure_faithfulness` found as one line."""
    parts = []
    for what, hidden in (("picture", "places"), ("caption", "words")):
        if f"{what}_deletion" in measured:
            agreement = measured.get(f"{what}_occlusion_correlation")
            best, random = measured[f"{what}_deletion"], measured[f"{what}_random"]
            text = f"a logit falls by {best:.2f} without the best {hidden}, by {random:.2f} without random ones"
            parts.append(text if agreement is None else f"{text} (rank correlation with occlusion {agreement:.2f})")
    return "; ".join(parts) or "no label was predicted, so nothing was measured"


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of two lists of n numbers; 0 if one holds only equal numbers.

    It is Pearson's correlation of the ranks; equal numbers have their mean rank.
    """
    ranks = [_ranks(np.asarray(each, dtype=np.float64)) for each in (first, second)]
    one, other = (each - each.mean() for each in ranks)
    norm = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / norm if norm > 0 else 0.0


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[places.ravel()]
    return ranks


@dataclass(frozen=True, eq=False)
class _Subject:
    """One row of a graph, of which parts can be hidden."""

    session: Explaining
    pixels: Pixels
    tokens: tuple[Tokens, ...]
    spans: Sequence[tuple[int, int] | None]
    grid: tuple[int, ...]
    words: tuple[tuple[int, int], ...]

    def without(self, what: str, hidden: Sequence[Sequence[int]]) -> Logits:
        """Return the logits (n, L) without the places or words of each of n lists."""
        logits = []
        for start in range(0, len(hidden), _BATCH):
            some = hidden[start : start + _BATCH]
            pixels = np.repeat(self.pixels, len(some), axis=0)
            tokens = tuple(np.repeat(each, len(some), axis=0) for each in self.tokens)
            for index, numbers in enumerate(some):
                if what == "picture":
                    cover(pixels[index], (self.grid[0], self.grid[1]), numbers)
                else:
                    ids, mask = tokens
                    leave_out(ids[index], mask[index], self.spans, [self.words[number] for number in numbers])
            logits.append(self.session.run(pixels, *tokens))
        return np.concatenate(logits)


def _delete(
    subject: _Subject,
    what: str,
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[np.intp],
    logits: Logits,
    generator: np.random.Generator,
    found: dict[str, list[float]],
) -> None:
    """Add what deletion and random deletion take from the logit of each label; `values` are (labels, n)."""
    size = values.shape[1]
    count = max(1, round(_SHARE * size))
    best = [np.argsort(-value, kind="stable")[:count].tolist() for value in values]
    drawn = [generator.choice(size, count, replace=False).tolist() for _ in range(_DRAWS)]
    after = subject.without(what, [*best, *drawn])
    for index, (label, logit) in enumerate(zip(labels, logits, strict=True)):
        found.setdefault(f"{what}_deletion", []).append(float(logit - after[index, label]))
        found.setdefault(f"{what}_random", []).append(float(logit - after[len(best) :, label].mean()))
