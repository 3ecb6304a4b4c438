"""A run on the rows of a split: what its model says, before and after calibration, and how good that is."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.predict.prediction import decide, sigmoid
from mlic_train.data import Record, Split, fingerprint
from mlic_train.data.splits import Splits
from mlic_train.errors import CheckpointError, DataError
from mlic_train.measure.calibration import apply_calibration
from mlic_train.measure.collect import check_labels, collect, report, usable_records
from mlic_train.measure.predict import Outputs
from mlic_train.runs.checkpoint import Trained

from .facts import run_name

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]

MODE_NAMES = {"both": "as given", "picture-only": "picture only", "caption-only": "caption only"}


@dataclass(frozen=True)
class Measured:
    """What a run's model says of a split.

    `raw` and `calibrated` are by mode (see `predict_modes`); those of "both" belong to `records`, row by row, N of
    them. `metrics` are by mode as well. `thresholds` float64 (L).
    """

    records: Sequence[Record]
    raw: dict[str, Outputs]
    calibrated: dict[str, Outputs]
    thresholds: npt.NDArray[np.float64]
    metrics: dict[str, dict[str, float]]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Of every row as it is given, float32 (N, L)."""
        return sigmoid(self.calibrated["both"].logits)

    @property
    def targets(self) -> Bools:
        """The truth, bool (N, L)."""
        return self.calibrated["both"].targets

    @property
    def decisions(self) -> Bools:
        """What is predicted, bool (N, L)."""
        return decide(self.probabilities, self.thresholds)


def sees_pictures(trained: Trained) -> bool:
    """False for a run whose data had no pictures: what its backbone says is random."""
    known = trained.state.metrics
    return not ("val-caption-only" in known and "val-picture-only" not in known)


def as_seen(trained: Trained, splits: Splits) -> Splits:
    """The splits as the run was given them: without their pictures, where it was trained with --no-pictures.

    Raises:
        DataError: the labels are not those of the model.
    """
    check_labels(trained, splits)
    if sees_pictures(trained):
        return splits
    stripped = {name: _without_pictures(split) for name, split in splits.named().items()}
    return dataclasses.replace(splits, **stripped)  # type: ignore[arg-type] # the names are fields that hold splits


def data_warning(trained: Trained, splits: Splits) -> str | None:
    """A sentence where `splits` (see `as_seen`) are not the data that the run was trained with; None where they are."""
    expected, found = trained.config.provenance.get("data_fingerprint"), fingerprint(splits.named())
    if expected == found:
        return None
    if expected is None:
        return "Warning: the run does not say which data it was trained with; this may be other data."
    return (
        f"Warning: this is not the data that the run was trained with (fingerprint {found[:12]}, not "
        f"{str(expected)[:12]}): its numbers here are not those of its training, and rows may have been trained on."
    )


def choose_split(splits: Splits, name: str) -> Split:
    """The split of that name.

    Raises:
        DataError: the data has none.
    """
    split = splits.named().get(name)
    if split is None:
        raise DataError(f"the data has no split {name!r}; give --{name} FILE, or another --split")
    return split


def measure(trained: Trained, records: Sequence[Record], progress: Progress) -> Measured:
    """Run the model over the records, each picture once, in eval mode on the CPU.

    The calibration is applied afterwards, by the model's own module, so that both answers come from one run.

    Raises:
        DataError: the model can use none of the records, or none of them has a label.
        CheckpointError: there are not as many thresholds as labels.
    """
    model, config, thresholds = trained.model, trained.config, np.asarray(trained.state.thresholds)
    if len(thresholds) != config.model.num_labels:
        raise CheckpointError(
            f"{trained.folder} has {len(thresholds)} thresholds for {config.model.num_labels} labels; train it anew"
        )
    usable = usable_records(records, config.model)
    if not usable:
        raise DataError(f"{config.model.name} can use none of the {len(records)} rows: it reads only pictures")
    if not any(record.labels for record in usable):
        raise DataError(f"none of the {len(usable)} rows has a label: there is nothing to measure")
    calibration = copy.deepcopy(model.calibration)
    model.calibration.reset()
    try:
        with progress(run_name(trained.folder), "picture") as show:
            raw = collect(trained, trained.run, usable, show)
    finally:
        model.calibration.load_state_dict(calibration.state_dict())
    calibrated = {mode: apply_calibration(calibration, rows) for mode, rows in raw.items()}
    by_suffix = report(calibrated, trained.state.thresholds)
    metrics = {mode: by_suffix["" if mode == "both" else f"-{mode}"] for mode in calibrated}
    return Measured(usable, raw, calibrated, thresholds, metrics)


def _without_pictures(split: Split) -> Split:
    """As `read_split` reads it with `pictures` False."""
    records = tuple(dataclasses.replace(record, image=None) for record in split.records if record.captions)
    return dataclasses.replace(split, records=records)
