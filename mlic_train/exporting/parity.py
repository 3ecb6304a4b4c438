"""Parity: does the exported graph agree with the PyTorch model, at every shape and on real rows?

The checks go from cheap to expensive: names, types and dynamic axes of inputs and outputs (`create_session` refuses a
graph that breaks the contract in them), fixed axes, then shapes, values and decisions on made-up rows, and values and
decisions on real ones. The first failure ends the export; nothing is written.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlic_runtime.base.arrays import Floats, Logits
from mlic_runtime.base.text import counted
from mlic_runtime.graph.session import CAPTION_EVIDENCE, PICTURE_EVIDENCE, GraphSession
from mlic_runtime.package.manifest import AgreementSpec, ParitySpec
from mlic_runtime.predict.prediction import decide, sigmoid
from mlic_train.errors import ExportError
from mlic_train.measure.predict import Outputs
from mlic_train.models import Model
from mlic_train.runs.folder import TrainedModel

from .inputs import example_inputs


@dataclass(frozen=True)
class Tolerance:
    """The largest allowed difference between a graph of one precision and PyTorch.

    A logit may differ by `atol` + `rtol` * |logit|; the share of equal label decisions is at least `equal_decisions`,
    in [0, 1].
    """

    atol: float
    rtol: float
    equal_decisions: float


ATOL = 1e-4  # in logits: at most 0.000025 of a probability
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(ATOL, rtol=0.0, equal_decisions=1.0),
    "fp16": Tolerance(0.1, rtol=0.02, equal_decisions=0.995),
    "int8-full": Tolerance(2.0, rtol=0.2, equal_decisions=0.98),
    "int8": Tolerance(2.0, rtol=0.2, equal_decisions=0.98),
}
# (B, T): one row, one token, odd numbers, the traced shape, longer and larger ones.
SHAPES = ((1, 1), (2, 5), (7, 1), (3, 17), (5, 31), (16, 8))


def check_parity(trained: TrainedModel, session: GraphSession, precision: str = "fp32") -> ParitySpec:
    """Compare a graph in ONNX Runtime with the model in PyTorch over SHAPES, by the tolerance of its precision.

    Raises:
        ExportError: an axis that should be fixed is dynamic, or a shape, a value or too many decisions differ; the
            message names the shape.
        PackageError: the graph fails at one of the shapes.
    """
    config, tolerance = trained.config.model, TOLERANCES[precision]
    sides = (session.height, session.width, session.num_labels)
    expected_sides = (config.image_size, config.image_size, config.num_labels)
    if sides != expected_sides:
        raise ExportError(
            f"parity of {precision} failed: H, W, L of the graph are {sides} (None: dynamic), "
            f"expected {expected_sides}; nothing was written"
        )
    pairs = []
    for index, (batch, tokens) in enumerate(SHAPES):
        inputs = example_inputs(trained.model, batch, min(tokens, config.max_length), seed=index)
        with torch.inference_mode():
            expected = trained.model(*inputs).numpy()
        logits = session.run(*(tensor.numpy() for tensor in inputs))
        where = f"B={batch}, T={tokens}"
        _check_values(expected, logits, precision, where)
        if session.explains:
            _check_evidence(trained.model, session, inputs, logits, precision, where)
        pairs.append((expected, logits))
    of_model, of_graph = (np.concatenate(side) for side in zip(*pairs, strict=True))
    agreement = _check_decisions(trained, of_model, of_graph, precision, "made-up rows")
    return ParitySpec(**dataclasses.asdict(agreement), shapes=len(SHAPES), atol=tolerance.atol, rtol=tolerance.rtol)


def check_rows(
    trained: TrainedModel, expected: Mapping[str, Outputs], outputs: Mapping[str, Outputs], precision: str = "fp32"
) -> dict[str, AgreementSpec]:
    """Compare the outputs of the model (`expected`) and of a graph for real rows, by the tolerance of its precision.

    Arguments and result are by split and mode, see `collect_splits`.

    Raises:
        ExportError: a value or too many decisions differ; the message names split and mode.
    """
    agreements = {}
    for key, rows in expected.items():
        _check_values(rows.logits, outputs[key].logits, precision, key)
        agreements[key] = _check_decisions(trained, rows.logits, outputs[key].logits, precision, key)
    return agreements


def parity_table(parity: Mapping[str, ParitySpec]) -> str:
    """Return a table of the checks, a line for each precision and check; checks of names and axes have no numbers."""
    lines = [f"{'precision':9}  {'check':20}  {'rows':>6}  {'max |difference|':>16}  {'equal decisions':>15}"]
    for precision, spec in parity.items():
        lines += [f"{precision:9}  {check:20}  {'-':>6}  {'-':>16}  {'-':>15}" for check in ("names and types", "axes")]
        for check, agreement in ((f"{spec.shapes} (B, T) shapes", spec), *spec.splits.items()):
            lines.append(
                f"{precision:9}  {check:20}  {agreement.rows:6}  {agreement.max_abs_difference:16.2g}  "
                f"{agreement.equal_decisions:15.3%}"
            )
    return "\n".join(lines) + "\n"


def _check_evidence(
    model: Model, session: GraphSession, inputs: tuple[Tensor, ...], logits: Logits, precision: str, where: str
) -> None:
    """Compare what the graph and the model say about where logits come from, and the logits beside it.

    Raises:
        ExportError: they differ by more than the tolerance of the precision, or the logits are other ones than without.
    """
    with torch.inference_mode():
        expected = model.explain(*inputs)
    found = session.explain(*(tensor.numpy() for tensor in inputs))
    if not np.array_equal(found.logits, logits):
        raise ExportError(f"parity of {precision} failed at {where}: logits change where evidence is fetched")
    _check_values(expected.picture_evidence.numpy(), found.picture, precision, where, PICTURE_EVIDENCE)
    if expected.caption_evidence is not None and found.caption is not None:
        _check_values(expected.caption_evidence.numpy(), found.caption, precision, where, CAPTION_EVIDENCE)


def _check_values(expected: Floats, logits: Floats, precision: str, where: str, what: str = "logits") -> None:
    """Compare logits float32 (B, L), or parts of them, of the model and of its graph.

    Raises:
        ExportError: the shapes differ, or a number differs by more than the tolerance of the precision.
    """
    if logits.shape != expected.shape:
        raise ExportError(
            f"parity of {precision} failed at {where}: {what} of shape {logits.shape}, expected {expected.shape}; "
            "nothing was written"
        )
    tolerance = TOLERANCES[precision]
    difference = np.abs(logits - expected)
    # Not written as `any(difference > ...)`, which NaN would pass.
    if not (difference <= tolerance.atol + tolerance.rtol * np.abs(expected)).all():
        raise ExportError(
            f"parity of {precision} failed at {where}: {what} differ by {difference.max():.3g}, "
            f"at most {tolerance.atol:g} + {tolerance.rtol:g} * |logit| is allowed; nothing was written"
            f"{_advice(precision)}"
        )


def _check_decisions(
    trained: TrainedModel, expected: Logits, logits: Logits, precision: str, where: str
) -> AgreementSpec:
    """Compare label decisions by logits float32 (N, L) of the model and of its graph; return the agreement.

    Raises:
        ExportError: too many label decisions differ; the message names the first.
    """
    thresholds = trained.state.thresholds
    sides = [sigmoid(expected), sigmoid(logits)]
    equal = np.equal(*(decide(side, thresholds) for side in sides))
    share = float(equal.mean())
    least = TOLERANCES[precision].equal_decisions
    if share < least:
        row, label = np.argwhere(~equal)[0]
        raise ExportError(
            f"parity of {precision} failed at {where}: {1 - share:.3%} of the label decisions differ, at most "
            f"{1 - least:.3%} may; the first is {trained.config.model.labels[label]!r} in row {row}, with probability "
            f"{sides[0][row, label]:.7f} in PyTorch, {sides[1][row, label]:.7f} in the graph and the threshold "
            f"{thresholds[label]:g}; nothing was written{_advice(precision, where, equal.shape)}"
        )
    return AgreementSpec(len(logits), float(np.abs(logits - expected).max()), share)


def _advice(precision: str, where: str = "", decisions: tuple[int, ...] = ()) -> str:
    """Return what to do about a graph of reduced precision that differs too much, as the end of a message.

    Args:
        precision: of the graph; nothing can be done about one that is not reduced.
        where: the split and mode that were compared.
        decisions: how many rows and labels were compared there.
    """
    if precision == "fp32":
        return ""
    advice = f": leave {precision} out of --precision"
    rows, labels = decisions or (0, 0)
    if where.split("-")[0] in ("val", "test") and rows * labels * (1 - TOLERANCES[precision].equal_decisions) < 1:
        advice += (
            f", or give {where.split('-')[0]} more rows: of {counted(rows, 'row')} with {counted(labels, 'label')} not "
            "one decision may differ"
        )
    return advice
