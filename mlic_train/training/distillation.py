"""Training rows from teachers: pseudo-labelled records, softened labels, and the file that stores both."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlic_runtime.annotations.source.files import is_there, read_bytes
from mlic_runtime.annotations.source.members import from_json, to_json
from mlic_runtime.base.output_files import write_bytes
from mlic_runtime.base.progress import SECONDS_BETWEEN_LINES, progress_bar
from mlic_train.batches.dataset import target_of
from mlic_train.config import Distillation
from mlic_train.data import Record, fingerprint, read_split
from mlic_train.data.check import find_overlap, leave_out_undecodable
from mlic_train.data.soft_labels import Matched, match_soft_files, read_soft_file
from mlic_train.data.splits import Splits, problem_lines
from mlic_train.errors import CheckpointError, ConfigError, DataError
from mlic_train.runs.folder import SOFT_LABEL_FILES, checkpoint_digest

from .teacher import load_teachers, soft_labels

SOFT_LABELS_NAME = "soft-labels.jsonl"
FINGERPRINT = "soft_labels_fingerprint"
_DIGITS = 6  # soft labels are rounded before use, so that a resumed run reads back equal numbers


def teach(
    splits: Splits,
    options: Distillation,
    teacher_weight: float,
    device: torch.device | str,
    log: Callable[[str], None],
) -> tuple[Splits, dict[str, str | int | float]]:
    """Add the pseudo-labelled records to the training split, and mix the teachers into the targets of its own records.

    The target of a record with labels y becomes (1 - w) * y + w * teacher, where w is `teacher_weight`. An unknown
    label takes the teacher's value in full, whatever w is. A record keeps y, and its unknown labels, if no teacher can
    see anything of it, or if teachers see only its caption and it also has a picture (or the reverse): the student sees
    more than they do, and the labels y describe all of it.

    Args:
        splits: the labelled data.
        options: the teachers and the files of unlabelled rows.
        teacher_weight: w in 0..1.
        device: the device of the teachers.
        log: called with lines of progress.

    Returns:
        The new splits, and notes on them for the provenance; without a teacher `splits` themselves and no notes.

    Raises:
        ConfigError: teachers without anything to teach, or a `teacher_weight` without teachers.
        DataError: an unlabelled row has labels, its picture is in validation or test, or no teacher can see anything
            of it; or a teacher has other labels.
    """
    if not options.teachers and not options.soft_labels:
        if teacher_weight:
            raise ConfigError(
                f"teacher_weight is {teacher_weight}, but there is no teacher: give --teacher RUN or --soft-labels FILE"
            )
        return splits, {}
    own = splits.train.records
    matched, digests = _match(splits, options, log)
    joined = () if matched is None else matched.joined
    useful = options.files or joined or teacher_weight or any(record.unknown for record in own)
    if not useful:
        raise ConfigError(
            "a teacher has nothing to teach: give --pseudo-label FILE, --pseudo-captions FILE or --teacher-weight W"
        )
    pseudo = _read_pseudo(splits, options, log)
    if options.teachers:
        teachers = load_teachers(options.teachers, splits.labels.names)
    taught_rows = (i for i, record in enumerate(own) if teacher_weight or record.unknown)
    places = [i for i in taught_rows if matched is not None or _all_is_seen(own[i], options.sees)]
    records = [*(own[i] for i in places), *pseudo, *joined]
    soft = np.full((len(records), len(splits.labels)), np.nan)
    if options.teachers:
        # Teachers see all of these; a record of which they see only a part is left to the files.
        shown = [i for i, record in enumerate(records) if record.labels is None or _all_is_seen(record, options.sees)]
        with progress_bar("soft labels", "record", SECONDS_BETWEEN_LINES) as progress:
            seen = soft_labels([records[i] for i in shown], teachers, options.sees, device, progress)
        soft[shown] = seen
    if matched is not None:
        nothing = np.full((len(pseudo), len(splits.labels)), np.nan)
        logits = np.concatenate([matched.logits[places], nothing, matched.joined_logits])
        soft = _combined(soft, len(options.teachers), logits, options.soft_weight)
    blind = [record for record, row in zip(records, soft, strict=True) if record.labels is None and np.isnan(row).all()]
    if blind:
        raise DataError(
            f"{len(blind)} records have nothing that a teacher could see (teacher_sees is {options.sees!r}), "
            f"the first is record {blind[0].number} of {blind[0].file}; leave them out"
        )
    softened = [_soften(record, row, teacher_weight) for record, row in zip(records, soft, strict=True)]
    labelled = dict(zip(places, softened, strict=False))
    taught = _with_train(splits, [*(labelled.get(i, record) for i, record in enumerate(own)), *softened[len(places) :]])
    unlabelled = len(pseudo) + len(joined)
    taught_now = sum(each.soft is not None for each in softened)
    log(f"soft labels of {taught_now} training records, {unlabelled} of them without labels of their own")
    notes: dict[str, str | int | float] = {"teacher_sees": options.sees} if options.teachers else {}
    notes |= {FINGERPRINT: fingerprint({"train": taught.train})}
    if options.teachers:
        notes["teachers"] = ", ".join(
            f"{folder.resolve().name} {checkpoint_digest(folder)[:12]}" for folder in options.teachers
        )
    if digests:
        notes[SOFT_LABEL_FILES] = json.dumps(digests)
    if joined:
        notes["joined_by_soft_labels"] = len(joined)
    if pseudo:
        counts = Counter(record.file.name for record in pseudo)
        notes["pseudo_labelled"] = ", ".join(f"{name} ({count} records)" for name, count in counts.items())
    return taught, notes


def write_soft_labels(folder: Path, splits: Splits) -> None:
    """Write soft-labels.jsonl, a line per record with soft labels, so that resuming needs no teacher.

    A record with labels of its own is written as its index in the training split, any other record in full.
    """
    lines = []
    for index, record in enumerate(splits.train.records):
        if record.soft is None:
            continue
        entry: dict[str, object] = {"index": index}
        if record.labels is None:
            entry = {
                "image": to_json(record.image),
                "image_id": record.image_id,
                "captions": record.captions,
                "file": str(record.file),
                "number": record.number,
            }
        lines.append(json.dumps({**entry, "soft": record.soft}) + "\n")
    write_bytes(folder / SOFT_LABELS_NAME, "".join(lines).encode("ascii"))


def read_soft_labels(folder: Path, splits: Splits, expected: object) -> Splits:
    """Return the splits that `teach` made of the labelled data `splits` for the run in `folder`.

    `expected` is the fingerprint that the run's provenance has under `FINGERPRINT`.

    Raises:
        CheckpointError: the file is missing or malformed, or the records have changed.
        DataError: a picture is missing.
    """
    file = folder / SOFT_LABELS_NAME
    own = list(splits.train.records)
    pseudo = []
    try:
        for line in file.read_text(encoding="ascii").splitlines():
            entry = json.loads(line)
            soft = tuple(entry["soft"])
            if "index" in entry:
                own[entry["index"]] = dataclasses.replace(own[entry["index"]], soft=soft)
            else:
                image = from_json(entry["image"])
                captions, rows = tuple(entry["captions"]), Path(entry["file"])
                pseudo.append(Record(entry["image_id"], image, captions, None, rows, entry["number"], soft))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise CheckpointError(f"{file} cannot be read ({type(error).__name__}: {error}); start a new run") from None
    taught = _with_train(splits, [*own, *pseudo])
    if fingerprint({"train": taught.train}) != expected:
        raise CheckpointError(f"{file} or a picture that it names has changed since the run started")
    return taught


def _read_pseudo(splits: Splits, options: Distillation, log: Callable[[str], None]) -> list[Record]:
    """Read all files of rows without labels; refuse rows with labels, and pictures of validation or test."""
    records: list[Record] = []
    held_out = {name: split for name, split in splits.named().items() if name != "train"}
    for files, pictures in ((options.pseudo_label, True), (options.pseudo_captions, False)):
        if not files:
            continue
        split = read_split(
            files,
            splits.labels,
            images=options.images if pictures else None,
            skip_bad_rows=options.skip_bad_rows,
            pictures=pictures,
        )
        if options.skip_bad_rows:
            with progress_bar("unlabelled pictures", "picture", SECONDS_BETWEEN_LINES) as progress:
                split = leave_out_undecodable({"pseudo": split}, progress)["pseudo"]
        for line in problem_lines({"pseudo": split}):
            log(line)
        labelled = next((record for record in split.records if record.labels is not None), None)
        if labelled is not None:
            raise DataError(
                f"{labelled.file}: record {labelled.number} has labels; give the file as training data "
                "(--train, --captions), or without its Labels column"
            )
        if overlap := find_overlap(held_out, split):
            raise DataError(
                f"{len(overlap)} of the records to pseudo-label have a picture of the validation or test split; "
                f"take them out, the first is {overlap[0]}"
            )
        records += split.records
    return records


def _all_is_seen(record: Record, sees: str) -> bool:
    """Return whether teachers that see `sees` see the whole record."""
    return sees == "both" or (record.image is None if sees == "caption" else not record.captions)


def _soften(record: Record, probabilities: npt.NDArray[np.float64], weight: float) -> Record:
    """Return the record with its soft labels, or the record itself if no teacher could see it."""
    mixed = np.array(probabilities, dtype=np.float64)
    if np.isnan(mixed).all():
        return record
    if record.labels is not None:
        known = [index for index in range(len(mixed)) if index not in record.unknown]
        own = target_of(record, len(mixed)).astype(np.float64)[known]
        mixed[known] = np.where(np.isnan(mixed[known]), own, (1.0 - weight) * own + weight * mixed[known])
    soft = tuple(None if np.isnan(value) else round(float(value), _DIGITS) for value in mixed)
    return dataclasses.replace(record, soft=soft)


def check_soft_files(provenance: Mapping[str, object]) -> None:
    """Refuse to resume a run whose files of soft labels have other bytes now; a file that is gone is not needed.

    Raises:
        CheckpointError: a file has changed.
    """
    digests: dict[str, str] = json.loads(str(provenance.get(SOFT_LABEL_FILES, "{}")))
    for name, digest in digests.items():
        if is_there(Path(name)) and hashlib.sha256(read_bytes(Path(name))).hexdigest() != digest:
            raise CheckpointError(f"{name} has changed since the run started; put it back, or start a new run")


def _match(splits: Splits, options: Distillation, log: Callable[[str], None]) -> tuple[Matched | None, dict[str, str]]:
    """Read the files of soft labels, match and log them; return also their paths and digests."""
    if not options.soft_labels:
        return None, {}
    files = [read_soft_file(file, splits.labels) for file in options.soft_labels]
    matched = match_soft_files(files, splits.named(), options)
    for line in matched.notes:
        log(line)
    if matched.overlap:
        raise DataError(
            f"{len(matched.overlap)} pictures that only soft labels name are pictures of the validation or test split "
            f"under another name; take them out, the first is {matched.overlap[0]}"
        )
    return matched, {str(file.file.resolve()): file.sha256 for file in files}


def _combined(
    soft: npt.NDArray[np.float64], teachers: int, logits: npt.NDArray[np.float64], weight: float
) -> npt.NDArray[np.float64]:
    """Return the probabilities (N, L) of mean logits: `teachers` count as many, the files' logits `weight`."""
    clipped = np.clip(soft, 1e-6, 1 - 1e-6)
    own = np.log(clipped / (1 - clipped))
    weights = teachers * ~np.isnan(own) + weight * ~np.isnan(logits)
    total = teachers * np.nan_to_num(own) + weight * np.nan_to_num(logits)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weights > 0, 1 / (1 + np.exp(-total / weights)), np.nan)


def _with_train(splits: Splits, records: Sequence[Record]) -> Splits:
    return dataclasses.replace(splits, train=dataclasses.replace(splits.train, records=tuple(records)))
