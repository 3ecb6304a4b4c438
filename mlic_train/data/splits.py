"""Read the splits that training uses from the files that options name."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlic_runtime.annotations.folder import SplitFiles, find_splits
from mlic_runtime.annotations.formats.format import ColumnNames
from mlic_runtime.annotations.formats.registry import find_format
from mlic_runtime.annotations.labels import LabelSet
from mlic_runtime.annotations.problems import Problem, ProblemCount, count_problems
from mlic_runtime.annotations.source.addresses import expand, location_of
from mlic_runtime.annotations.source.archive import Archive, errors_of
from mlic_runtime.base.progress import SECONDS_BETWEEN_LINES, log_line, progress_bar
from mlic_train.config import DataOptions, Distillation
from mlic_train.errors import ConfigError, DataError

from .check import bad_file, describe_shared, find_problems, leave_out_undecodable, read_leniently, sort_problems
from .corrections import join_rows
from .divide import DIVISION_NAME, Division, apply_division, divide, read_division
from .reader import read_labels, read_split
from .records import Split
from .soft_labels import SoftFile, match_soft_files, read_soft_file
from .summary import SplitSummary, summarise

_SPLITS = ("train", "val", "test")
_LISTED = 3  # sources that a line names


@dataclass(frozen=True)
class Splits:
    """The splits as they were read.

    Attributes:
        labels: of all of them.
        train: the training split.
        val: the split for tuning.
        test: the split for reporting; None without one.
        division: how val was divided off train; None where the data has its own.
        notes: what was read as what, and what was done with rows, a line each.
        archive: the zip file that the data is from; None for other data.
    """

    labels: LabelSet
    train: Split
    val: Split
    test: Split | None
    division: Division | None = None
    notes: tuple[str, ...] = ()
    archive: Archive | None = None

    def named(self) -> dict[str, Split]:
        """Return {"train": ..., "val": ..., "test": ...}, without missing ones."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def lines(self) -> list[str]:
        """Return all that is to say about the reading: the notes, then a line for each kind of problem of rows."""
        return [*self.notes, *problem_lines(self.named(), self.archive)]


@dataclass(frozen=True)
class DataCheck:
    """What is in data, and what is wrong with it.

    Attributes:
        read_as: for each source, how it is read.
        labels: the names of all labels, in order.
        splits: what each split holds; val as training would divide it off, where the data has none.
        problems: by severity and kind, errors first.
        notes: what training would do with the rows, a line each.
    """

    read_as: Mapping[str, str]
    labels: tuple[str, ...]
    splits: Mapping[str, SplitSummary]
    problems: tuple[ProblemCount, ...]
    notes: tuple[str, ...]

    @property
    def errors(self) -> int:
        """How many problems would stop training, or teach it something wrong."""
        return sum(problem.count for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> int:
        """How many problems are allowed."""
        return sum(problem.count for problem in self.problems if problem.severity == "warning")

    def to_json(self) -> dict[str, Any]:
        """Return what `mlic-train --check --format json` prints."""
        return {
            "read_as": dict(self.read_as),
            "labels": list(self.labels),
            "splits": {
                name: {
                    "rows": summary.records,
                    "pictures": summary.with_picture,
                    "captions": summary.captions,
                    "labelled": summary.labelled,
                }
                for name, summary in self.splits.items()
            },
            "problems": [
                {
                    "severity": problem.severity,
                    "kind": problem.kind,
                    "count": problem.count,
                    "examples": list(problem.examples),
                }
                for problem in self.problems
            ],
        }


def split_files(options: DataOptions) -> SplitFiles:
    """Return the files of every split.

    Raises:
        ConfigError: neither a folder nor a training file was given.
        DataError: the folder does not hold what it should.
    """
    if not options.has_training_rows:
        raise ConfigError("no training data: give --data FOLDER, or --train FILE (and --val FILE)")
    searched = SplitFiles(train=()) if options.folder is None else find_splits(options.folder, options.data_format)
    for line in searched.notes:
        log_line(line)
    given: dict[str, Any] = {"labels_file": options.labels_file, "images": options.images}
    for name in ("train", "val", "test", "captions"):
        given[name] = tuple(one for file in getattr(options, name) for one in expand(file))
    return dataclasses.replace(searched, **{name: value for name, value in given.items() if value})


def load_splits(
    options: DataOptions,
    labels: LabelSet | None = None,
    *,
    divided: Path | None = None,
    runs: Sequence[Path] | None = None,
) -> Splits:
    """Read all splits, for training or to measure runs.

    A row is in the split that its file or folder is named for, or that the row names itself. Where that gives no val,
    training rows are divided (see `divide`). With `skip_bad_rows` pictures are decoded too, and rows whose picture
    cannot be are left out. Rows without labels are left out. More labelled rows (`also`) come last, so that they do
    not change who is in val.

    Args:
        options: where they are.
        labels: the labels of an existing model; None takes them from the data.
        divided: the folder of a run that is resumed: its val is val again, if it was divided off.
        runs: the folders of runs to measure: their val is val again, and nothing is divided anew.

    Raises:
        DataError: a file or row cannot be used, training or validation rows have no labels, there are too few rows to
            divide, or the data is not that of the runs.
        ConfigError: no training data was given, or no validation data that fits the runs.
    """
    data = _Data.read(options, labels)
    with errors_of(data.archive):
        if options.skip_bad_rows:
            data.leave_out_undecodable()
        data.leave_out_unlabelled()
        data.notes += describe_shared(data.named)
        if divided is not None and (divided / DIVISION_NAME).exists():
            runs = [divided]
        data.divide(runs)
        data.join_also()
    named, notes = data.named, data.all_notes()
    return Splits(data.labels, named["train"], named["val"], named.get("test"), data.division, notes, data.archive)


def read_splits(options: DataOptions, *, decode: bool = False) -> dict[str, Split]:
    """Read the splits that the data has, divided as for training.

    Unlike training, a report and shards take rows that are not labelled, and do without val where there are too few
    rows for it.

    Args:
        options: where they are.
        decode: leave out rows whose picture cannot be decoded, with `skip_bad_rows`.

    Raises:
        ConfigError: no training data was given.
        DataError: a file or row cannot be used.
    """
    return read_divided(options, decode=decode)[0]


def read_divided(
    options: DataOptions, *, decode: bool = False
) -> tuple[dict[str, Split], Division | None, tuple[str, ...]]:
    """Return what `read_splits` does, how val was divided off, and all notes on how the data was read."""
    data = _Data.read(options)
    with errors_of(data.archive):
        if decode and options.skip_bad_rows:
            data.leave_out_undecodable()
        with contextlib.suppress(DataError):  # too few rows for two splits can still be shown and written
            data.divide(None)
        data.join_also()
    return data.named, data.division, data.all_notes()


def check_data(
    options: DataOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    teacher: Distillation | None = None,
    examples: int | None = 3,
) -> DataCheck:
    """Find everything that is wrong with the data, without training (see `data.check.check_splits`).

    Args:
        options: where it is.
        progress: called after each picture that was decoded, with their number so far and their total.
        teacher: its `soft_labels` are checked too; a label that they know may be unknown in every row of training.
        examples: how many examples of each kind of problem to keep; None keeps all.

    Raises:
        ConfigError: no training data was given.
        DataError: the labels cannot be read, or the data cannot be found.
    """
    data = _Data.read(options, lenient=True)
    problems = []
    try:
        data.divide(None)
    except DataError as error:
        problems.append(Problem(data.files.train[0], None, "empty-split", str(error)))
    data.join_also(lenient=True)
    teacher = teacher or Distillation()
    soft = data.read_soft_labels(teacher)
    taught = {name for file in soft for name in file.known}
    problems += [*data.bad_files, *data.match_soft_labels(soft, teacher)]
    problems += [*find_problems(data.named, data.files.by_split(), progress, taught=taught)]
    if data.division is not None:  # its notes say which labels val lacks
        problems = [each for each in problems if each.kind != "unused-label" or "no record of val " not in each.message]
    return DataCheck(
        read_as=data.described,
        labels=data.labels.names,
        splits={name: summarise(split) for name, split in data.named.items()},
        problems=data.shorten(count_problems(sort_problems(problems, data.files.by_split()), examples)),
        notes=data.all_notes()[data.read_as :],
    )


def problem_lines(splits: Mapping[str, Split], archive: Archive | None = None) -> list[str]:
    """Return one line for each kind of problem of rows that were left out, or read in a way that is to be said."""
    skipped = [problem for split in splits.values() for problem in split.skipped]
    warnings = [problem for split in splits.values() for problem in split.warnings]
    lines = [problem.line() for problem in count_problems(warnings)]
    lines += [problem.line("skipped") for problem in count_problems(skipped)]
    lines = lines if archive is None else [archive.named_in(line) for line in lines]
    return [*lines, f"skipped {len(skipped):,} bad rows"] if skipped else lines


class _Data:
    """Splits on their way from files to training: each step says what it does in `notes`."""

    def __init__(self, options: DataOptions, files: SplitFiles, labels: LabelSet) -> None:
        self.options, self.files, self.labels = options, files, labels
        self.archive = files.archive
        self.named: dict[str, Split] = {}
        self.bad_files: list[Problem] = []
        self.division: Division | None = None
        sources = dict.fromkeys((*files.train, *files.captions, *files.val, *files.test, *options.also))
        self.described = {self._shown(source): _describe(source, options) for source in sources}
        self.notes = describe_sources(self.described)
        self.read_as = len(self.notes)

    @classmethod
    def read(cls, options: DataOptions, labels: LabelSet | None = None, *, lenient: bool = False) -> "_Data":
        """Read the rows of every split; `lenient` lists what is wrong with them instead of raising it."""
        files = split_files(options)
        with errors_of(files.archive):
            if labels is None:
                labels = read_labels(
                    (*files.train, *files.captions), options.data_format, files.labels_file, column_names(options)
                )
            data = cls(options, files, labels)
            for name, paths in files.by_split().items():
                split = data._read(paths, files.images, lenient=lenient)
                if isinstance(split, Problem):
                    data.bad_files.append(split)
                else:
                    data.named[name] = split
            data._move_rows(skip=lenient or options.skip_bad_rows)
        return data

    def read_soft_labels(self, teacher: Distillation) -> list[SoftFile]:
        """Return the files of soft labels that can be read; the others are `bad_files`."""
        found = []
        for file in teacher.soft_labels:
            try:
                found.append(read_soft_file(file, self.labels))
            except DataError as error:
                self.bad_files.append(bad_file((file,), str(error)))
        return found

    def match_soft_labels(self, files: Sequence[SoftFile], teacher: Distillation) -> tuple[Problem, ...]:
        """Note what the files say about labelled rows; return their problems."""
        if not files or "train" not in self.named:
            return ()
        matched = match_soft_files(files, {name: _labelled(split) for name, split in self.named.items()}, teacher)
        self.notes += matched.notes
        return matched.overlap

    def all_notes(self) -> tuple[str, ...]:
        """Return the notes; of a zip file they name the places in it."""
        return tuple(self.notes if self.archive is None else map(self.archive.named_in, self.notes))

    def shorten(self, problems: Iterable[ProblemCount]) -> tuple[ProblemCount, ...]:
        """Return problems with their places in the data folder; those in a zip file begin with its name."""
        folder = self.options.folder
        if folder is None:
            return tuple(problems)
        archive = None if self.archive is None else dataclasses.replace(self.archive, file=Path(folder.name))

        def shown(example: str) -> str:
            return archive.named_in(example) if archive else example.removeprefix(f"{folder}{os.sep}")

        return tuple(dataclasses.replace(each, examples=tuple(map(shown, each.examples))) for each in problems)

    def _shown(self, source: Path) -> str:
        """Return what people know a source by: its place, or that in the zip file that it is from."""
        return location_of(source) if self.archive is None else self.archive.named_in(str(source))

    def _read(self, paths: tuple[Path, ...], images: Path | None, *, lenient: bool) -> Split | Problem:
        how: dict[str, Any] = {
            "images": images,
            "data_format": self.options.data_format,
            "pictures": self.options.pictures,
            "columns": column_names(self.options),
        }
        if lenient:
            return read_leniently(paths, self.labels, **how)
        return read_split(paths, self.labels, skip_bad_rows=self.options.skip_bad_rows, **how)

    def _move_rows(self, *, skip: bool) -> None:
        """Put rows of the training files into the split that they name themselves."""
        for name in [name for name in self.named if name != "train"]:
            self._refuse_other_splits(name, skip=skip)
        train = self.named.get("train")
        if train is None or all(record.split is None for record in train.records):
            return
        counts = {}
        for name in _SPLITS[1:]:
            moved = tuple(record for record in train.records if record.split == name)
            if moved:
                own = self.named.get(name, Split((), self.labels))
                self.named[name] = dataclasses.replace(own, records=(*own.records, *moved))
                counts[name] = len(moved)
        rest = tuple(record for record in train.records if record.split in (None, "train"))
        if not rest and not skip:
            files = ", ".join(map(str, self.files.train))
            raise DataError(f"{files}: every row is of {' or '.join(counts)}; expected some of train")
        self.named["train"] = dataclasses.replace(train, records=rest)
        self.named = {name: self.named[name] for name in _SPLITS if name in self.named}
        said = ", ".join(f"{count:,} {name}" for name, count in {"train": len(rest), **counts}.items())
        blank = sum(record.split is None and record.file not in self.files.captions for record in rest)
        self.notes.append(
            f"split as the rows say: {said}" + (f"; {blank:,} rows that name none are for training" if blank else "")
        )

    def _refuse_other_splits(self, name: str, *, skip: bool) -> None:
        split = self.named[name]
        bad = [
            Problem(
                record.file,
                record.number,
                "split-overlap",
                f"the row names the split {record.split!r}, but its file is for {name}; give the file as --train alone",
            )
            for record in split.records
            if record.split not in (None, name)
        ]
        if bad and not skip:
            raise DataError(str(bad[0]))
        if bad:
            records = tuple(record for record in split.records if record.split in (None, name))
            self.named[name] = dataclasses.replace(split, records=records, skipped=(*split.skipped, *bad))

    def leave_out_undecodable(self) -> None:
        """Decode every picture, and leave out the rows where that fails."""
        with progress_bar("decoding pictures", "picture", SECONDS_BETWEEN_LINES) as progress:
            self.named = leave_out_undecodable(self.named, progress)

    def leave_out_unlabelled(self) -> None:
        """Leave out rows without labels; a test of such rows alone as well.

        Raises:
            DataError: no row of train, or none of val, is labelled.
        """
        for name, split in list(self.named.items()):
            labelled = _labelled(split)
            left_out = len(split.records) - len(labelled.records)
            if not left_out:
                continue
            first = next(record for record in split.records if record.labels is None)
            if labelled.records:
                self.named[name] = labelled
                where = f"the first is {first.file}: record {first.number}"
                self.notes.append(f"{name}: {left_out:,} rows that are not labelled are left out, {where}")
            elif name == "test":
                del self.named[name]
                self.notes.append(f"test: none of {left_out:,} rows is labelled; it is left out")
            else:
                raise DataError(
                    f"{first.file}: record {first.number} of the split {name!r} is not labelled, nor is any other; "
                    "a split needs labels (an empty cell means none of the labels)"
                )

    def divide(self, runs: Sequence[Path] | None) -> None:
        """Divide val off train where there is none, anew or as for the runs.

        Raises:
            DataError: there are too few rows, or the data is not that of the runs.
            ConfigError: none of the runs was trained on data that had to be divided, or they were divided differently.
        """
        if "train" not in self.named:
            return
        if "val" in self.named:
            usual = DataOptions()
            for name in ("val_fraction", "split_seed"):
                if getattr(self.options, name) != getattr(usual, name):
                    self.notes.append(f"--{name.replace('_', '-')} is not used: the data has val")
            return
        train = self.named["train"]
        if runs is None:
            with progress_bar("comparing pictures", "picture", SECONDS_BETWEEN_LINES) as progress:
                fraction, seed = self.options.val_fraction, self.options.split_seed
                train, val, self.division = divide(train, fraction, seed, self.files.captions, progress)
        else:
            found = {run: division for run in runs if (division := read_division(run)) is not None}
            if not found:
                raise ConfigError(
                    "no validation data: give --val FILE; thresholds and the best checkpoint come from it"
                    if not runs
                    else f"no validation data, and {', '.join(map(str, runs))} had its own: give --val FILE"
                )
            (run, self.division), *others = found.items()
            for other, division in others:
                if division.split_of != self.division.split_of:
                    raise ConfigError(
                        f"{run} and {other} were trained on other divisions of their data, so no rows are new to both: "
                        "train them with the same --split-seed and --val-fraction, or give --val FILE"
                    )
            train, val = apply_division(train, self.division, run / DIVISION_NAME)
        self.notes += self.division.notes
        self.named = {"train": train, "val": val, **{k: v for k, v in self.named.items() if k == "test"}}

    def join_also(self, *, lenient: bool = False) -> None:
        """Join the rows of `also`; `lenient` lists what is wrong with them instead of raising it.

        Raises:
            DataError: a file or row cannot be used.
        """
        for file in self.options.also:
            more = self._read_also(file, lenient=lenient)
            if isinstance(more, Problem):
                self.bad_files.append(more)
            elif "train" in self.named:
                self.named, note = join_rows(self.named, more)
                self.notes.append(note)

    def _read_also(self, file: Path, *, lenient: bool) -> Split | Problem:
        """Read a file of `also`; its pictures lie beside it, or where those of the data are."""
        images = self.options.images
        beside = self._read((file,), images, lenient=True)
        if images is None and not isinstance(beside, Problem) and _missing_pictures(beside):
            elsewhere = self.files.images or self.files.train[0].parent
            there = self._read((file,), elsewhere, lenient=True)
            if not isinstance(there, Problem) and _missing_pictures(there) < _missing_pictures(beside):
                images = elsewhere
        return self._read((file,), images, lenient=lenient)


def _missing_pictures(split: Split) -> int:
    return sum(problem.kind == "missing-picture" for problem in split.skipped)


def column_names(options: DataOptions) -> ColumnNames:
    """Return the columns of tables that the user names."""
    return ColumnNames(options.image_column, options.caption_column, options.labels_column, options.split_column)


def _describe(source: Path, options: DataOptions) -> str:
    try:
        return find_format(source, options.data_format, column_names(options)).describe(source)
    except DataError as error:
        return f"cannot be read: {str(error).removeprefix(f'{source}: ')}"


def describe_sources(described: Mapping[str, str], listed: int | None = _LISTED) -> list[str]:
    """Return a line for each way in which sources are read; it names `listed` of them, or with None all."""
    by_way: dict[str, list[str]] = {}
    for source, way in described.items():
        by_way.setdefault(way, []).append(source)
    lines = []
    for way, sources in by_way.items():
        more = f" and {len(sources) - listed:,} more" if listed is not None and len(sources) > listed else ""
        lines.append(f"read {', '.join(sources[:listed])}{more} as {way}")
    return lines


def _labelled(split: Split) -> Split:
    """Return the split without rows that have no labels."""
    return dataclasses.replace(split, records=tuple(record for record in split.records if record.labels is not None))
