"""A run on the rows of a split: the outputs of its model, before and after calibration, and their metrics."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Bools
from mlic_runtime.base.progress import progress_bar
from mlic_runtime.predict.prediction import decide, sigmoid
from mlic_train.data import Record, Split, fingerprint
from mlic_train.data.splits import Splits
from mlic_train.errors import CheckpointError, DataError
from mlic_train.measure.calibration import apply_calibration
from mlic_train.measure.collect import check_labels, collect, report, usable_records
from mlic_train.measure.predict import Outputs
from mlic_train.runs.folder import TrainedModel

from .run_facts import run_name, sees_pictures

MODE_NAMES = {"both": "as given", "picture-only": "picture only", "caption-only": "caption only"}


@dataclass(frozen=True)
class Measurement:
    """The outputs of a run's model on a split.

    `raw` and `calibrated` are by mode (see `predict_modes`); those of "both" belong to the N `records`, row by row.
    `metrics` are by mode as well. `thresholds` are float64 (L).
    """

    records: Sequence[Record]
    raw: dict[str, Outputs]
    calibrated: dict[str, Outputs]
    thresholds: npt.NDArray[np.float64]
    metrics: dict[str, dict[str, float]]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """The probabilities for every row with all its inputs, float32 (N, L)."""
        return sigmoid(self.calibrated["both"].logits)

    @property
    def targets(self) -> Bools:
        """The true labels, bool (N, L)."""
        return self.calibrated["both"].targets

    @property
    def known(self) -> Bools | None:
        """Where it is known whether a row has a label, bool (N, L); None: everywhere."""
        return self.calibrated["both"].known

    @property
    def decisions(self) -> Bools:
        """The predicted labels, bool (N, L), False where nobody knows whether that is right."""
        decisions = decide(self.probabilities, self.thresholds)
        return decisions if self.known is None else decisions & self.known


def as_seen(trained: TrainedModel, splits: Splits) -> Splits:
    """Return the splits as the run was given them: without pictures, where it was trained with --no-pictures.

    Raises:
        DataError: the labels are not those of the model.
    """
    check_labels(trained, splits)
    if sees_pictures(trained):
        return splits
    stripped = {name: _without_pictures(split) for name, split in splits.named().items()}
    return dataclasses.replace(splits, **stripped)  # type: ignore[arg-type] # the names are fields that hold splits


def data_warning(trained: TrainedModel, splits: Splits) -> str | None:
    """Return a warning where `splits` (see `as_seen`) are not the data that the run was trained with, else None."""
    expected, actual = trained.config.provenance.get("data_fingerprint"), fingerprint(splits.named())
    if expected == actual:
        return None
    if expected is None:
        return "Warning: the run does not say which data it was trained with; this may be other data."
    return (
        f"Warning: this is not the data that the run was trained with (fingerprint {actual[:12]}, not "
        f"{str(expected)[:12]}): its numbers differ from those of its training, and it may have seen these rows there."
    )


def choose_split(splits: Splits, name: str) -> Split:
    """Return the split of that name.

    Raises:
        DataError: the data has no such split.
    """
    split = splits.named().get(name)
    if split is None:
        raise DataError(f"the data has no split {name!r}; give --{name} FILE, or another --split")
    return split


def measure(trained: TrainedModel, records: Sequence[Record]) -> Measurement:
    """Run the model over the records, each picture once, in eval mode on the CPU.

    The calibration is applied afterwards, by the model's own module, so that both outputs come from one run.

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
        with progress_bar(run_name(trained.folder), "picture") as show:
            raw = collect(trained, trained.run, usable, show)
    finally:
        model.calibration.load_state_dict(calibration.state_dict())
    calibrated = {mode: apply_calibration(calibration, rows) for mode, rows in raw.items()}
    by_suffix = report(calibrated, trained.state.thresholds)
    metrics = {mode: by_suffix["" if mode == "both" else f"-{mode}"] for mode in calibrated}
    return Measurement(usable, raw, calibrated, thresholds, metrics)


def _without_pictures(split: Split) -> Split:
    """Return the split as `read_split` reads it with `pictures` False."""
    records = tuple(dataclasses.replace(record, image=None) for record in split.records if record.captions)
    return dataclasses.replace(split, records=records)
