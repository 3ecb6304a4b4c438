"""The ranges of a graph's values on training rows, which float16 and int8 graphs are fitted to."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from mlic_runtime.base.override import override
from mlic_runtime.graph.session import PIXELS

from .inputs import Inputs
from .rounding import Covariance, Floats, Window, can_round

_SEED = 0
_ROWS_AT_A_TIME = 4  # the values between all convolutions of so many pictures are kept at a time
_SAMPLES_PER_INPUT = 24  # samples of a covariance, for each of its columns
_FEWEST_PLACES = 8  # of a row
_VALUES = 200_000  # of a tensor, by which its range is chosen
_RANGE_SHARES = np.arange(1.0, 0.29, -0.1)


@dataclass(frozen=True)
class Ranges:
    """The values of a graph's tensors on real rows.

    Attributes:
        data: the smallest and the largest value of every float32 tensor, as the quantizer takes them.
        means: {tensor that a convolution reads: the mean of each of its channels (C)}, over rows with a picture.
        covariances: {convolution: the covariance of what an output value is computed from (G, D, D)}, over the same
            rows.
        ends: {tensor that a convolution reads or that is computed from one: between which values it is best rounded to
            256 steps}, over the same rows.
    """

    data: TensorsData
    means: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    covariances: Mapping[str, Floats] = field(default_factory=dict)
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def largest(self) -> Mapping[str, float]:
        """Return {tensor: its largest absolute value}."""
        return {
            name: max(abs(float(bound.item())) for bound in spec.range_value) for name, spec in self.data.data.items()
        }


def measure_ranges(graph: bytes, batches: Sequence[Inputs]) -> Ranges:
    """Run a float32 graph and record the ranges of its tensors; `batches` need every kind of row that it will get."""
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime's calibrator works on files
        source = Path(folder, "model.onnx")
        source.write_bytes(graph)
        calibrator = create_calibrator(source, augmented_model_path=str(Path(folder, "augmented.onnx")))
        calibrator.collect_data(_Reader(batches))
        data = calibrator.compute_data()
    return Ranges(data, _measure_means(graph, batches), *_measure_values(graph, batches, data))


def _measure_means(graph: bytes, batches: Sequence[Inputs]) -> dict[str, npt.NDArray[np.float32]]:
    model = onnx.load_from_string(graph)
    tensors = sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv"})
    outputs = [f"{tensor}/mean" for tensor in tensors]
    for tensor, output in zip(tensors, outputs, strict=True):
        model.graph.node.append(helper.make_node("ReduceMean", [tensor], [output], axes=[0, 2, 3], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    pictures = [batch for batch in batches if batch[PIXELS].any()]
    if not pictures or not tensors:
        return {}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [len(batch[PIXELS]) for batch in pictures]
    measured = [session.run(outputs, batch) for batch in pictures]
    return {
        tensor: np.average([means[index] for means in measured], axis=0, weights=rows)
        for index, tensor in enumerate(tensors)
    }


def _measure_values(
    graph: bytes, batches: Sequence[Inputs], data: TensorsData
) -> tuple[dict[str, Floats], dict[str, tuple[float, float]]]:
    """Return `Ranges.covariances` and `Ranges.ends`, from some of the values of each row."""
    model = onnx.load_from_string(graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    windows: dict[str, tuple[str, Window, int]] = {}  # {convolution: (what it reads, its window, places of a row)}
    pictures = [batch for batch in batches if batch[PIXELS].any()]
    rows = sum(len(batch[PIXELS]) for batch in pictures)
    tensors: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            tensors |= dict.fromkeys((node.input[0], node.output[0]))
            weight = numpy_helper.to_array(weights[node.input[1]])
            window = Window.of(node, weight.shape)
            if window is not None and can_round(window, weight.shape[1] * window.groups):
                inputs = window.inputs_of(weight.shape[1] * window.groups)
                places = max(_FEWEST_PLACES, -(-_SAMPLES_PER_INPUT * inputs // max(1, rows)))
                windows[node.name] = (node.input[0], window, places)
        elif node.op_type in ("Clip", "Relu", "Add") and node.input[0] in tensors:
            tensors[node.output[0]] = None
    tensors = {name: None for name in tensors if name in data.data}
    if not pictures or not tensors:
        return {}, {}
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name not in known
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    covariances: dict[str, Covariance] = {name: Covariance() for name in windows}
    values: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in tensors}
    rng = np.random.default_rng(_SEED)
    for batch in pictures:
        for start in range(0, len(batch[PIXELS]), _ROWS_AT_A_TIME):
            part = {name: array[start : start + _ROWS_AT_A_TIME] for name, array in batch.items()}
            found = dict(zip(tensors, session.run(list(tensors), part), strict=True))
            for name, (tensor, window, places) in windows.items():
                covariances[name].add(window.draw(found[tensor], places, rng))
            for name, array in found.items():
                count = min(array.size, _VALUES * len(array) // rows + 1)
                values[name].append(array.reshape(-1)[rng.integers(0, array.size, count)])
    return (
        {name: covariance.value() for name, covariance in covariances.items()},
        {name: _best_ends(np.concatenate(values[name]), *_ends(data, name)) for name in tensors},
    )


def _ends(data: TensorsData, tensor: str) -> tuple[float, float]:
    low, high = (float(end.item()) for end in data.data[tensor].range_value)
    return min(low, 0.0), max(high, 0.0)


def _best_ends(values: npt.NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Return a share of the range outside of which values are cut: that with the smallest mean squared error.

    A few values far out are better cut than all others rounded to coarser steps.
    """
    best, least = (low, high), np.inf
    for share in _RANGE_SHARES:
        step = max((high - low) * share / 255, float(np.finfo(np.float32).tiny))
        rounded = np.clip(np.round(values / step), np.round(low * share / step), np.round(high * share / step)) * step
        error = float(np.square(rounded - values, dtype=np.float64).mean())
        if error < least:
            best, least = (low * share, high * share), error
    return best


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no type information
    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = iter(batches)

    @override
    def get_next(self) -> Inputs | None:
        return next(self._batches, None)
