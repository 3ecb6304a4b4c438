"""The graphs of a model package, one for each precision, whose loss of F1 on validation rows is limited."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mlic_runtime.graph.session import PIXELS
from mlic_runtime.package.manifest import FULL_RANGE, PRECISIONS, REDUCED_RANGE
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.data.splits import Splits
from mlic_train.errors import ExportError
from mlic_train.measure.collect import collect_splits, run_graph
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.predict import MODES, Outputs
from mlic_train.runs.folder import TrainedModel

from .equalization import equalize
from .graph import export_graph
from .half_precision import store_as_float16, to_float16
from .inputs import Inputs, draw_rows, make_inputs
from .quantization import Effect, Quantizer, session_for_parity
from .ranges import measure_ranges
from .rounding import MOST_INPUTS

FULL = PRECISIONS[0]
"""The precision that the others are made from."""

MAX_DROP = 0.5
"""The points (hundredths) of validation samples F1 that a precision may cost."""

_NOISE = 0.25
"""The first noise budget of int8, the root mean square change of a logit: 0.25 moves a probability of 0.5 to 0.562.

F1 on val is the judge; the budget is for val splits that are too small to see a change of this size.
"""

_LESS_NOISE = 0.7  # of that of a graph that costs too much F1, at the most: few graphs are tried, each in seconds

_WEIGHT_BITS = {FULL_RANGE: 8, REDUCED_RANGE: 7}

_RANGE_ROWS = 192
_MODE_ROWS = 32  # rows of these that also run without picture or caption, for black pixels and empty captions
_NOISE_ROWS = 32  # other rows: noise must not be measured on rows that the ranges were fitted to


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
    trained: TrainedModel,
    precisions: Sequence[str],
    splits: Splits | None,
    expected: Mapping[str, Outputs],
    max_drop: float,
    log: Callable[[str], None],
    *,
    evidence: bool = False,
) -> dict[str, Graph]:
    """Make the graphs of one model, {precision: graph}, in the order of `precisions`.

    Reduced precisions are fitted on the train split of `splits` and judged by val; without data only FULL is possible.
    `expected` are the outputs of PyTorch for val, see `collect_splits`; for `max_drop` see MAX_DROP, for
    `evidence` `graph.export_graph`.

    Raises:
        ExportError: a reduced precision without data, or int8 costs too much F1 even with the fewest blocks.
    """
    reduced = [precision for precision in precisions if precision != FULL]
    if reduced and splits is None:
        raise ExportError(
            f"{reduced[0]} is fitted on training rows and judged by validation rows: give --data, "
            f"or export --precision {FULL} only"
        )
    full = export_graph(trained.model, trained.config.model.max_length, evidence)
    graphs = {FULL: Graph(store_as_float16(full))}
    if reduced and splits is not None:
        rows = draw_rows(trained, splits.train.records, _RANGE_ROWS + _NOISE_ROWS)
        log(f"measuring the ranges of values on {min(len(rows), _RANGE_ROWS)} training rows")
        batches = make_inputs(trained, rows[:_RANGE_ROWS], MODES[:1])
        batches += make_inputs(trained, rows[:_MODE_ROWS], MODES[1:])
        if "fp16" in reduced:
            content, kept = to_float16(full, measure_ranges(full, batches))
            graphs["fp16"] = Graph(content, {"fp16_left_in_fp32": _join_names(kept)})
        quantizers: dict[str, Quantizer] = {}
        if wanted := [precision for precision in reduced if precision in _WEIGHT_BITS]:
            pictures = [batch for batch in batches if batch[PIXELS].any()]
            level = equalize(full, pictures)
            ranges = measure_ranges(level, batches)
            quantizers = {name: Quantizer(level, ranges, _WEIGHT_BITS[name]) for name in wanted}
            quantizer = quantizers[wanted[0]]  # what is rounded one by one is the same for each number of bits
            if alone := quantizer.num_rounded_alone:
                reason = f"one value has more than {MOST_INPUTS:,} inputs" if pictures else "no row has a picture"
                log(
                    f"the weights of {alone} of {quantizer.num_convolutions} convolutions are rounded one by one, not "
                    f"together, as {reason}: they lose more"
                )

        def drop(precision: str, graph: bytes) -> float:
            run = run_graph(trained, session_for_parity(graph, precision))
            return largest_drop(trained, expected, collect_splits(trained, run, splits, ("val",)))

        for precision, quantizer in quantizers.items():
            unseen = make_inputs(trained, rows[-_NOISE_ROWS:])
            graphs[precision] = _quantize(quantizer, unseen, partial(drop, precision), max_drop, log, precision)
    return {precision: graphs[precision] for precision in precisions}


def largest_drop(trained: TrainedModel, expected: Mapping[str, Outputs], outputs: Mapping[str, Outputs]) -> float:
    """Return by how many points the samples F1 of a graph on val is below the model's, in the worst mode."""
    thresholds = np.asarray(trained.state.thresholds)

    def f1(rows: Outputs) -> float:
        return compute_metrics(sigmoid(rows.logits), rows.targets, thresholds, rows.known)["samples_f1"]

    modes = [key for key in expected if key.split("-")[0] == "val"]
    return max(100 * (f1(expected[key]) - f1(outputs[key])) for key in modes)


def drop_error(precision: str, drop: float, max_drop: float, how: str = "") -> ExportError:
    """Return the error of a precision that costs too many points of F1."""
    return ExportError(
        f"{precision} costs {drop:.2f} points of validation samples F1{how}, at most {max_drop:g} are allowed "
        "(--max-drop); nothing was written"
    )


def _quantize(
    quantizer: Quantizer,
    unseen: Sequence[Inputs],
    drop: Callable[[bytes], float],
    max_drop: float,
    log: Callable[[str], None],
    precision: str,
) -> Graph:
    """Quantize the blocks that the noise budget allows; halve the budget until the loss of F1 is allowed.

    If blocks have to stay in float32, those do that make the most noise for what int8 saves in them. What it saves is
    counted, not timed, so that equal inputs give equal bytes; counts and measured times of the hybrid's blocks lead to
    nearly the same choices.
    """
    log(f"measuring what {precision} does to each of {len(quantizer.blocks)} blocks")
    if not quantizer.blocks:
        raise ExportError(f"the model has no operator that {precision} could be used for; leave it out of --precision")
    effects = quantizer.measure_effects(unseen)
    budget, lost, how = _NOISE**2, float("inf"), ""
    while chosen := _choose_blocks(effects, budget):
        content = quantizer.quantize([effect.block for effect in chosen])
        lost = drop(content)
        how = f" with {len(effects) - len(chosen)} of {len(effects)} blocks in {FULL}"
        log(f"{precision}{how}: {lost:+.2f} points of validation samples F1 lost")
        if lost <= max_drop:
            key = precision.replace("-", "_")
            names = sorted(effect.block.name.strip("/") for effect in effects if effect not in chosen)
            return Graph(content, {f"{key}_blocks": len(chosen), f"{key}_left_in_fp32": _join_names(names)})
        noise = sum(effect.mean_square for effect in chosen)
        if noise == 0:
            break  # what is lost does not come from int8
        budget = min(budget / 2, _LESS_NOISE * noise)
    raise drop_error(precision, lost, max_drop, how)


def _choose_blocks(effects: Sequence[Effect], budget: float) -> list[Effect]:
    """Return the blocks to quantize, in the order of `effects`: their noise together is at most `budget`.

    Those come first that make the least noise for what they save; one that does not fit any more is left out.
    """
    worst_first = sorted(effects, key=lambda effect: effect.mean_square / effect.saving, reverse=True)
    chosen: list[Effect] = []
    for effect in reversed(worst_first):
        if sum(each.mean_square for each in (*chosen, effect)) <= budget:
            chosen.append(effect)
    return [effect for effect in effects if effect in chosen]


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
