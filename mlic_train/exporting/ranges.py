"""Rows to try a graph on, and the ranges of its values on them."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS
from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
from mlic_train.data import Record
from mlic_train.measure.collect import graph_inputs, usable_records
from mlic_train.measure.predict import MODES, in_mode
from mlic_train.runs.checkpoint import Trained

Inputs = dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.int64]]
"""A batch by the names of the graph's inputs."""

_BATCH_SIZE = 16
_SEED = 0


def draw_rows(trained: Trained, records: Sequence[Record], count: int) -> list[Record]:
    """`count` records in random order, the same for the same records; those with pictures first, whatever there is."""
    usable = usable_records(records, trained.config.model)
    random.Random(_SEED).shuffle(usable)
    return sorted(usable, key=lambda record: record.image is None)[:count]


def make_inputs(trained: Trained, records: Sequence[Record], modes: Sequence[str] = MODES) -> list[Inputs]:
    """The records in batches, once in each mode; a model that reads no captions has only the mode "both"."""
    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    loader = batch_loader(examples, trained.caption_tokenizer, evaluation_batches(len(examples), _BATCH_SIZE))
    names = (PIXELS, INPUT_IDS, ATTENTION_MASK)
    possible = [mode for mode in modes if config.reads_captions or mode == "both"]
    found: list[Inputs] = []
    for batch in loader:
        for mode in possible:
            tensors = graph_inputs(in_mode(batch, mode), config.image_size)
            found.append({name: tensor.numpy() for name, tensor in zip(names, tensors, strict=False)})
    return found


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
