"""How large the values inside a graph get on real rows."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from .inputs import Inputs


@dataclass(frozen=True)
class Ranges:
    """The smallest and the largest value of every float32 tensor that a graph computes.

    Attributes:
        data: as ONNX Runtime's quantizer takes them.
    """

    data: TensorsData

    def largest(self) -> Mapping[str, float]:
        """{tensor: its largest absolute value}."""
        return {
            name: max(abs(float(bound.item())) for bound in spec.range_value) for name, spec in self.data.data.items()
        }


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no type information
    def __init__(self, feeds: Sequence[Inputs]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Inputs | None:
        return next(self._feeds, None)


def measure_ranges(graph: bytes, feeds: Sequence[Inputs]) -> Ranges:
    """Run a float32 graph and watch.

    Args:
        graph: an ONNX file's content.
        feeds: at least one batch, of every kind of row that the graph is to work for.
    """
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime's calibrator works on files
        source = Path(folder, "model.onnx")
        source.write_bytes(graph)
        calibrator = create_calibrator(source, augmented_model_path=str(Path(folder, "augmented.onnx")))
        calibrator.collect_data(_Reader(feeds))
        return Ranges(calibrator.compute_data())
