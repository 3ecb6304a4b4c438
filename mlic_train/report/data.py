"""`mlic-report data`: what is in the data, as one HTML file."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mlic_train.config import DataOptions
from mlic_train.data import PROBLEM_KINDS, Problem, Split, fingerprint, summarise
from mlic_train.data.source.members import PictureFile
from mlic_train.data.splits import read_splits

from .captions import caption_length_parts, captions_of, find_repeated
from .counts import co_occurrence_parts, label_counts_parts, label_matrix, labels_per_row_parts
from .facts import printable
from .html import page, paragraph, section, table
from .leakage import find_shared
from .looks import Look, look_at_pictures
from .overlap import leakage_parts, verdict
from .parts import save_page
from .pictures import sample_parts, size_parts
from .wording import count
from .words import cloud_parts, label_words, words_parts

ProgressBar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Called with what is counted; gives what is called with (done, total)."""

_LISTED = 10  # problems of a kind


@dataclass(frozen=True)
class ReportData:
    """The data and what its pictures are; `broken` says why a picture cannot be used."""

    splits: Mapping[str, Split]
    pictures: bool
    looks: Mapping[PictureFile, Look]
    broken: Mapping[PictureFile, str]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels."""
        return next(iter(self.splits.values())).labels.names


def write_data_report(options: DataOptions, output: Path, *, progress: ProgressBar) -> None:
    """Write the report on the data as one HTML file.

    The same data gives the same bytes, wherever it lies.

    Raises:
        ConfigError: no training data was given.
        DataError: a file or row cannot be used.
        TrainError: the file cannot be written.
    """
    splits = read_splits(options)
    with progress("pictures") as show:
        looks, broken = look_at_pictures(splits, show)
    data = ReportData(splits, options.pictures, looks, broken)
    save_page(output, data_page(data, progress))


def data_page(data: ReportData, progress: ProgressBar) -> str:
    """The whole document."""
    shared = find_shared(data.splits, data.looks)
    captions = captions_of(data.splits)
    return page(
        "Data report",
        paragraph(verdict(shared, list(data.splits), len(data.looks))),
        section("Summary", *_summary(data)),
        section("Skipped rows and warnings", *_problems(data)),
        *_label_sections(data),
        section("Picture sizes", *_sizes(data)),
        section("Caption lengths", *_lengths(data, captions)),
        *_word_sections(data, progress),
        section(
            "Overlap and leakage",
            *leakage_parts(
                data.labels,
                list(data.splits),
                shared,
                captions,
                find_repeated(captions),
                compared=len(data.looks),
            ),
        ),
        section("Sample pictures", *_samples(data)),
    )


def _summary(data: ReportData) -> list[str]:
    found = {name: summarise(split) for name, split in data.splits.items()}
    columns: dict[str, list[int]] = {
        "rows": [one.records for one in found.values()],
        "pictures": [one.with_picture for one in found.values()],
        "captions": [one.captions for one in found.values()],
        "rows with a caption only": [one.caption_only for one in found.values()],
        "rows with none of the labels": [one.without_label for one in found.values()],
        "rows not labelled": [one.records - one.labelled for one in found.values()],
        "labels that occur": [sum(map(bool, one.label_counts.values())) for one in found.values()],
        "skipped rows": [one.skipped for one in found.values()],
    }
    rows = [[name, *(f"{cell:,}" for cell in cells)] for name, *cells in zip(found, *columns.values(), strict=True)]
    text = (
        f"{count(len(data.labels), 'label')}. A row is a picture with its captions and labels, or a caption with its "
        "labels. "
    )
    missing = [name for name in ("val", "test") if name not in data.splits]
    if missing:
        text += f"There is no {' and no '.join(missing)} split. "
    if not data.pictures:
        text += "Pictures were not read, as asked for. "
    text += f"Fingerprint: {fingerprint(data.splits)}"
    files = Counter((name, record.file) for name, split in data.splits.items() for record in split.records)
    return [
        paragraph(text),
        table(["split", *columns], rows),
        paragraph("Where the rows come from; rows of one picture count as one, where it is named first:"),
        table(["file", "split", "rows"], [[printable(file.name), name, f"{n:,}"] for (name, file), n in files.items()]),
    ]


def _problems(data: ReportData) -> list[str]:
    skipped = [problem for split in data.splits.values() for problem in split.skipped]
    warnings = [problem for split in data.splits.values() for problem in split.warnings]
    broken = [
        Problem(record.file, record.number, "undecodable-picture", f"{record.image_id!r}: {why}")
        for split in data.splits.values()
        for record in split.records
        if record.image is not None and (why := data.broken.get(record.image))
    ]
    every = [*skipped, *broken, *warnings]
    if not every:
        return [paragraph("No row was skipped, and nothing looks odd.")]
    text = f"{count(len(skipped), 'row')} skipped, {count(len(warnings), 'warning')}"
    if broken:
        text += (
            f", and {count(len(broken), 'picture')} that cannot be decoded: they count as pictures above, "
            "yet no section below sees them, and training would stop at them"
        )
    kinds: dict[str, list[Problem]] = {}
    for problem in every:
        kinds.setdefault(problem.kind, []).append(problem)
    shown = [problem for found in kinds.values() for problem in found[:_LISTED]]
    return [
        paragraph(text + "."),
        table(
            ["kind", "times"],
            [[f"{kind}: {PROBLEM_KINDS[kind]}", f"{len(found):,}"] for kind, found in kinds.items()],
        ),
        paragraph(
            "All of them:"
            if len(shown) == len(every)
            else f"The first {_LISTED} of each kind; mlic-train --check lists all:"
        ),
        table(
            ["what was found", "kind", "file", "row"],
            [[_message(one), one.kind, printable(one.file.name), one.number] for one in shown],
        ),
    ]


def _message(problem: Problem) -> str:
    # A page that is passed on must not say where the data lies.
    return problem.message.replace(f"{problem.file.parent}/", "")


def _label_sections(data: ReportData) -> list[str]:
    matrices = {name: label_matrix(split) for name, split in data.splits.items()}
    matrices = {name: matrix for name, matrix in matrices.items() if len(matrix)}
    if not matrices:
        counts = per_row = together = _left_out("no row is labelled")
    else:
        counts, per_row = label_counts_parts(data.labels, matrices), labels_per_row_parts(matrices)
        first = next(iter(matrices))
        together = co_occurrence_parts(data.labels, first, matrices[first])
    return [
        section("Label counts", *counts),
        section("Labels per row", *per_row),
        section("Labels that occur together", *together),
    ]


def _sizes(data: ReportData) -> list[str]:
    looks = {
        name: [look for one in split.records if one.image is not None and (look := data.looks.get(one.image))]
        for name, split in data.splits.items()
    }
    return size_parts(looks) if data.looks else _no_pictures(data)


def _lengths(data: ReportData, captions: Mapping[str, list[str]]) -> list[str]:
    return caption_length_parts(data.splits, captions) if any(captions.values()) else _left_out("there is no caption")


def _word_sections(data: ReportData, progress: ProgressBar) -> list[str]:
    split = data.splits["train"]
    found = label_words(split)
    if found is None or not any(label.words for label in found):
        words = clouds = _left_out("no labelled caption of train has a word that tells labels apart")
    else:
        words = words_parts(found, "train")
        with progress("word clouds") as show:
            clouds = cloud_parts(found, show)
    return [section("Words of each label", *words), section("Word clouds", *clouds)]


def _samples(data: ReportData) -> list[str]:
    return sample_parts(data.splits, data.looks) if data.looks else _no_pictures(data)


def _no_pictures(data: ReportData) -> list[str]:
    return _left_out("pictures were not read, as asked for" if not data.pictures else "there is no picture")


def _left_out(why: str) -> list[str]:
    return [paragraph(f"Left out: {why}.")]
