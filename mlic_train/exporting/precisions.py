"""The graphs of a model package, one for each precision, no worse than they may be on validation rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlic_runtime.graph.session import create_session
from mlic_runtime.package.manifest import PRECISIONS
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.data.splits import Splits
from mlic_train.errors import ExportError
from mlic_train.measure.collect import collect_splits, run_graph
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import MODES, Outputs
from mlic_train.runs.checkpoint import Trained

from .graph import export_graph
from .half_precision import to_float16
from .quantization import Noise, Quantizer
from .ranges import Inputs, draw_rows, make_inputs, measure_ranges

FULL = PRECISIONS[0]
"""The precision that every other one is made from."""

MAX_DROP = 0.5
"""How much validation samples F1 a precision may cost, in points (hundredths)."""

_NOISE = 0.1
"""What int8 may add to a logit at first, root mean square: a probability of 0.5 becomes 0.525."""

_RANGE_ROWS = 192
_MODE_ROWS = 32  # of them also without picture or caption, which adds black pixels and empty captions
_NOISE_ROWS = 32  # others, for the noise must not be measured on what the ranges were fitted to


@dataclass(frozen=True)
class Graph:
    """A graph of one precision.

    Attributes:
        content: an ONNX file's content.
        notes: how it was made, {key: text or number}, for the manifest's provenance.
    """

    content: bytes
    notes: Mapping[str, str | int] = field(default_factory=dict)


def make_graphs(
    trained: Trained,
    precisions: Sequence[str],
    splits: Splits | None,
    expected: Mapping[str, Outputs],
    max_drop: float,
    log: Callable[[str], None],
) -> dict[str, Graph]:
    """The graphs of one model, {precision: graph}, in the order that was asked for.

    Args:
        trained: the model.
        precisions: some of `manifest.PRECISIONS`.
        splits: its data: reduced precisions are fitted on the train split and judged by val; None allows FULL only.
        expected: what the model in PyTorch says of val, see `collect.collect_splits`.
        max_drop: see MAX_DROP.
        log: called with lines of progress.

    Raises:
        ExportError: a reduced precision without data, or int8 costs more F1 than it may however few blocks it has.
    """
    reduced = [precision for precision in precisions if precision != FULL]
    if reduced and splits is None:
        raise ExportError(
            f"{reduced[0]} is fitted on training rows and judged by validation rows: give --data, "
            f"or export --precision {FULL} only"
        )
    full = export_graph(trained.model, trained.config.model.max_length)
    graphs = {FULL: Graph(full)}
    if reduced and splits is not None:
        rows = draw_rows(trained, splits.train.records, _RANGE_ROWS + _NOISE_ROWS)
        log(f"measuring the ranges of values on {min(len(rows), _RANGE_ROWS)} training rows")
        batches = make_inputs(trained, rows[:_RANGE_ROWS], MODES[:1]) + make_inputs(
            trained, rows[:_MODE_ROWS], MODES[1:]
        )
        ranges = measure_ranges(full, batches)
        if "fp16" in reduced:
            content, kept = to_float16(full, ranges)
            graphs["fp16"] = Graph(content, {"fp16_left_in_fp32": _listed(kept)})
        if "int8" in reduced:

            def drop(graph: bytes) -> float:
                return largest_drop(trained, expected, collect_val(trained, graph, splits))

            unseen = make_inputs(trained, rows[-_NOISE_ROWS:])
            graphs["int8"] = _quantize(Quantizer(full, ranges), unseen, drop, max_drop, log)
    return {precision: graphs[precision] for precision in precisions}


def collect_val(trained: Trained, graph: bytes, splits: Splits) -> dict[str, Outputs]:
    """What a graph says of val, by the keys of `collect.collect_splits`."""
    return collect_splits(trained, run_graph(trained, create_session(graph)), splits, ("val",))


def largest_drop(trained: Trained, expected: Mapping[str, Outputs], found: Mapping[str, Outputs]) -> float:
    """By how many points the samples F1 on val is lower than that of the model, in the mode where it is most."""
    thresholds = np.asarray(trained.state.thresholds)

    def f1(outputs: Outputs) -> float:
        return compute_metrics(sigmoid(outputs.logits), outputs.targets, thresholds)["samples_f1"]

    modes = [key for key in expected if key.split("-")[0] == "val"]
    return max(100 * (f1(expected[key]) - f1(found[key])) for key in modes)


def _quantize(
    quantizer: Quantizer,
    unseen: Sequence[Inputs],
    drop: Callable[[bytes], float],
    max_drop: float,
    log: Callable[[str], None],
) -> Graph:
    """The graph with as many blocks in int8 as the noise budget allows, which is halved until the drop is allowed."""
    log(f"measuring what int8 does to each of {len(quantizer.blocks)} blocks")
    if not quantizer.blocks:
        raise ExportError("the model has no operator that int8 could be used for; leave it out of --precision")
    ranked = quantizer.measure_noise(unseen)
    budget, found = _NOISE**2, float("inf")
    left = _fewest(ranked, budget)
    while left < len(ranked):
        content = quantizer.quantize([noise.block for noise in ranked[left:]])
        found = drop(content)
        log(f"int8 with {left} of {len(ranked)} blocks in {FULL}: {found:+.2f} points of validation samples F1 lost")
        if found <= max_drop:
            names = sorted(noise.block.name.strip("/") for noise in ranked[:left])
            return Graph(content, {"int8_blocks": len(ranked) - left, "int8_left_in_fp32": _listed(names)})
        budget /= 2
        left = max(left + 1, _fewest(ranked, budget))
    raise ExportError(
        f"int8 costs {found:.2f} points of validation samples F1 with {left - 1} of {len(ranked)} blocks in {FULL}, "
        f"at most {max_drop:g} are allowed (--max-drop); nothing was written"
    )


def _fewest(ranked: Sequence[Noise], budget: float) -> int:
    """How many of the worst blocks have to be left out for the others' mean squares to stay within the budget."""
    left = 0
    while sum(noise.mean_square for noise in ranked[left:]) > budget:
        left += 1
    return left


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
