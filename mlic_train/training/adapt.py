"""What follows from the rows: options that the user left open, and what is worth saying of both."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlic_train.batches.dataset import plan_epoch
from mlic_train.config import ORIGIN_BACKBONE, Options, resolve, to_toml
from mlic_train.config.preset import NONE
from mlic_train.data import Record
from mlic_train.data.splits import Splits
from mlic_train.measure.collect import usable_records
from mlic_train.runs.find import run_called
from mlic_train.runs.starting_point import architecture

_MOST_EPOCHS = 60  # that `min_steps` may ask for
_LEAST_ODDS = 0.1
# Labels above which `--fusion transformer` is remarked on: it compares each with each, and from here on that is most of
# the time of a prediction (docs/run/growth.md).
_MANY_LABELS = 1_000
_PARTS = {
    (True, True): "with picture and caption",
    (True, False): "with the picture only",
    (False, True): "with the caption only",
    (False, False): "with neither",
}


def adapt(options: Options, splits: Splits) -> Options:
    """Return the options with what follows from the training rows, where the user left it open.

    A model to start from says what the new one is. Without any caption the model is the cnn. Without any picture the
    backbone, which would learn nothing, is the smallest. (With rows of teachers, which are not known here, both stay.)
    Epochs are as many as `min_steps` asks for. With a preset `empty_odds` is what val says.

    Raises:
        ConfigError: see `resolve` and `architecture`.
        CheckpointError: there is no model to start from.
    """
    values: dict[str, Any] = {}
    if options.weights.start_from:
        values |= architecture(run_called(options.weights.start_from[0]), options.given)
    elif _captions_are_missing(options, splits):
        values["name"] = "cnn"
    elif pictures_are_missing(options, splits) and "backbone" not in options.given:
        values["backbone"] = ORIGIN_BACKBONE
    adapted = _with(options, values)
    if (epochs := _epochs(adapted, splits)) > adapted.train.epochs:
        values["epochs"] = epochs
    if (odds := _empty_odds(adapted, splits)) is not None:
        values["empty_odds"] = odds
    return _with(options, values)


def remarks(options: Options, splits: Splits) -> list[str]:
    """Return what is worth saying of adapted options and of the rows, a line each."""
    lines = []
    if options.by_device:
        values = to_toml(options.by_device).strip().replace("\n", ", ")
        lines.append(f"preset {options.run.preset} on a {options.kind_of_device.upper()}: {values}")
    if _captions_are_missing(options, splits) and not options.model.reads_captions:
        lines.append("no row of train has a caption: the model is cnn, which reads pictures only")
    elif options.model.reads_captions:
        texts = {name: _parts(split.records) for name, split in splits.named().items() if name != "test"}
        if any("," in text.partition("rows: ")[2] for text in texts.values()):
            lines.append("; ".join(f"{name}: {text}" for name, text in texts.items()))
    if pictures_are_missing(options, splits):
        lines.append("no row of train has a picture: the model learns captions only, and passes over every picture")
    if options.model.fusion == "transformer" and options.model.reads_captions and len(splits.labels) > _MANY_LABELS:
        lines.append(
            f"fusion = transformer compares each of the {len(splits.labels):,} labels with each other: time and memory "
            "grow with the square of their number; fusion = cross and late grow with their number"
        )
    if _epochs(options, splits) == options.train.epochs > resolve(options.given).train.epochs:
        lines.append(f"rows are few: {options.train.epochs} epochs, to make {options.train.min_steps:,} steps of them")
    odds = _empty_odds(options, splits)
    if odds is not None and odds == options.train.empty_odds < 1:
        (few, rows), (many, all_) = _empty(splits.val.records), _empty(splits.train.records)
        lines.append(
            f"rows without a label: {few:,} of {rows:,} in val, {many:,} of {all_:,} in train; val shows what "
            f"comes in use, so empty_odds = {odds}"
        )
    return lines


def pictures_are_missing(options: Options, splits: Splits) -> bool:
    """Return whether no training row has a picture, those of teachers included, for a model that can do without."""
    pictures = any(record.image is not None for record in splits.train.records)
    started = bool(options.weights.start_from)  # what it knows of pictures stays
    return not (pictures or started or options.teacher.files) and options.model.reads_captions


def _captions_are_missing(options: Options, splits: Splits) -> bool:
    """Return whether no training row has a caption, and the user left the model open."""
    captions = any(record.captions for record in splits.train.records) or options.weights.start_from
    return not captions and not options.teacher.files and "name" not in options.given


def _epochs(options: Options, splits: Splits) -> int:
    """Return the epochs that `min_steps` asks for; 0 where the user chose their number."""
    rows = usable_records(splits.train.records, options.model)
    if not rows or not options.train.min_steps or "epochs" in options.given:
        return 0
    steps = math.ceil(len(plan_epoch(rows, options.train, 0)) / options.train.accumulate)
    return min(_MOST_EPOCHS, math.ceil(options.train.min_steps / steps))


def _empty_odds(options: Options, splits: Splits) -> float | None:
    """Return the odds of a row without labels in val over those in train, 0.1 to 1; None where they are not wanted.

    Each count has one half more (Haldane 1956), so that none is 0. Val has too few rows to say less than 0.1.
    """
    if options.run.preset in (None, NONE) or "empty_odds" in options.given or options.train.calibration == "none":
        return None
    few, rows = _empty(splits.val.records)
    many, all_ = _empty(splits.train.records)
    odds = (few + 0.5) / (rows - few + 0.5) / ((many + 0.5) / (all_ - many + 0.5))
    return round(min(1.0, max(_LEAST_ODDS, odds)), 2) if many else 1.0


def _empty(records: Sequence[Record]) -> tuple[int, int]:
    """Return how many rows have no label, and how many rows there are."""
    return sum(not record.labels for record in records), len(records)


def _with(options: Options, values: Mapping[str, Any]) -> Options:
    """Return the options as if the user had given these values, and with `given` as it was."""
    return dataclasses.replace(resolve({**options.given, **values}), given=options.given) if values else options


def _parts(records: Sequence[Record]) -> str:
    """Return how many rows there are, and how many of each kind."""
    counts = Counter((record.image is not None, bool(record.captions)) for record in records)
    kinds = ", ".join(f"{counts[kind]:,} {text}" for kind, text in _PARTS.items() if counts[kind])
    return f"{len(records):,} rows: {kinds}"
