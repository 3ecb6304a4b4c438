"""The ranges of a graph's values on training rows, which float16 and int8 graphs are fitted to."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator

from mlic_runtime.base.override import override
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, PIXELS
from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
from mlic_train.data import Record
from mlic_train.measure.collect import graph_inputs, usable_records
from mlic_train.measure.predict import MODES, in_mode
from mlic_train.runs.checkpoint import TrainedModel

Inputs = dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.int64]]
"""A batch: {name of the graph's input: array}"""

_BATCH_SIZE = 16
_SEED = 0


@dataclass(frozen=True)
class Ranges:
    """The smallest and the largest value of every float32 tensor that a graph computes, as the quantizer takes them."""

    data: TensorsData

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
        return Ranges(calibrator.compute_data())


def draw_rows(trained: TrainedModel, records: Sequence[Record], count: int) -> list[Record]:
    """Return `count` records in random order, always the same ones; those with pictures come first."""
    usable = usable_records(records, trained.config.model)
    random.Random(_SEED).shuffle(usable)
    return sorted(usable, key=lambda record: record.image is None)[:count]


def make_inputs(trained: TrainedModel, records: Sequence[Record], modes: Sequence[str] = MODES) -> list[Inputs]:
    """Return the records in batches, once in each mode; a model that reads no captions has only the mode "both"."""
    config = trained.config.model
    examples = Examples(records, config.num_labels, config.image_spec)
    names = (PIXELS, INPUT_IDS, ATTENTION_MASK)
    possible = [mode for mode in modes if config.reads_captions or mode == "both"]
    batches: list[Inputs] = []
    for batch in batch_loader(examples, trained.caption_tokenizer, evaluation_batches(len(examples), _BATCH_SIZE)):
        for mode in possible:
            tensors = graph_inputs(in_mode(batch, mode), config.image_size)
            batches.append({name: tensor.numpy() for name, tensor in zip(names, tensors, strict=False)})
    return batches


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no type information
    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = iter(batches)

    @override
    def get_next(self) -> Inputs | None:
        return next(self._batches, None)
