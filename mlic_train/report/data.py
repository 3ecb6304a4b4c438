"""`mlic-report data`: what is in the data, as one HTML file."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mlic_runtime.annotations.source.members import PictureFile
from mlic_runtime.base.progress import log_line, progress_bar
from mlic_runtime.base.text import printable
from mlic_train.config import DataOptions
from mlic_train.data import PROBLEM_KINDS, Problem, Split, fingerprint, summarise
from mlic_train.data.divide import Division
from mlic_train.data.picture_info import read_pictures
from mlic_train.data.splits import read_divided

from .captions import caption_length_section, captions_of, find_repeated
from .duplicates import Duplicates, find_duplicates, rows_of
from .label_counts import label_sections
from .leakage import leakage_facts, leakage_section
from .page import Part, Section, Table, facts, left_out, render_page, table, write_page
from .pictures import sample_section, size_section
from .words import word_sections

_LISTED = 10  # problems of a kind


def write_data_report(options: DataOptions, output: Path) -> None:
    """Write the report on the data as one HTML file.

    The same data gives the same bytes, wherever it lies.

    Raises:
        ConfigError: no training data was given.
        DataError: a file or row cannot be used.
        TrainError: the file cannot be written.
    """
    splits, division, _ = read_divided(options)  # the page lists what was left out
    for line in () if division is None else division.notes:
        log_line(line)
    with progress_bar("pictures") as show:
        pictures, broken = read_pictures(splits, show)
    names = next(iter(splits.values())).labels.names
    rows = rows_of(splits, pictures)
    captions = captions_of(splits)
    duplicates = find_duplicates(rows)
    if pictures:
        of_splits = {name: [row.picture for row in rows if row.split == name and row.picture] for name in splits}
        sizes = size_section({name: of_split for name, of_split in of_splits.items() if of_split})
        samples = sample_section(rows, names)
    else:
        reason = "there is no picture" if options.pictures else "pictures were not read, because of --no-pictures"
        sizes, samples = left_out("Picture sizes", reason), left_out("Sample pictures", reason)
    parts: list[Part] = [
        _facts(splits, names, duplicates, division, compared=bool(pictures)),
        _summary_section(splits),
        _problem_section(splits, broken),
        *label_sections(splits),
        sizes,
        caption_length_section(splits, captions),
        *word_sections(splits["train"]),
        leakage_section(names, captions, duplicates, find_repeated(captions), compared=bool(pictures)),
        samples,
    ]
    write_page(output, render_page("Data report", parts))


def _facts(
    splits: Mapping[str, Split],
    names: tuple[str, ...],
    duplicates: Mapping[str, Duplicates],
    division: Division | None,
    *,
    compared: bool,
) -> Table:
    return facts(
        [
            ("labels", len(names)),
            ("fingerprint", fingerprint(splits)),
            ("splits that are missing", ", ".join(name for name in ("val", "test") if name not in splits) or "none"),
            *([] if division is None else [("division", note) for note in division.notes]),
            ("pictures", "compared by name, bytes and pixels" if compared else "not read, compared by name only"),
            *leakage_facts(splits, duplicates),
        ]
    )


def _summary_section(splits: Mapping[str, Split]) -> Section:
    rows = []
    summaries = {name: summarise(split) for name, split in splits.items()}
    some_unknown = any(any(summary.unknown_counts.values()) for summary in summaries.values())
    for name, summary in summaries.items():
        unknown = summary.unknown_counts.values()
        rows.append(
            {
                "split": name,
                "rows": summary.records,
                "pictures": summary.with_picture,
                "captions": summary.captions,
                "rows with a caption only": summary.caption_only,
                "rows with none of the labels": summary.without_label,
                "rows not labelled": summary.records - summary.labelled,
                "labels that occur": sum(map(bool, summary.label_counts.values())),
                "skipped rows": summary.skipped,
                **({"unknown labels, of all rows together": sum(unknown)} if some_unknown else {}),
            }
        )
    files = Counter((name, record.file) for name, split in splits.items() for record in split.records)
    return Section(
        "Summary",
        "A row is a picture with its captions and labels, or a caption with its labels; rows of one picture count as "
        "one, in the file that names it first.",
        [table(rows), table([{"file": printable(f.name), "split": name, "rows": n} for (name, f), n in files.items()])],
    )


def _problem_section(splits: Mapping[str, Split], broken: Mapping[PictureFile, str]) -> Section:
    title = "Skipped rows and warnings"
    outcomes = {
        "row skipped": [problem for split in splits.values() for problem in split.skipped],
        "counted above, in no section below; training stops at it": [
            Problem(record.file, record.number, "undecodable-picture", f"{record.image_id!r}: {why}")
            for split in splits.values()
            for record in split.records
            if record.image is not None and (why := broken.get(record.image))
        ],
        "warning": [problem for split in splits.values() for problem in split.warnings],
    }
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for outcome, problems in outcomes.items():
        for problem in problems:
            kinds.setdefault((problem.kind, outcome), []).append(problem)
    if not kinds:
        return Section(title, "There are none.")
    times = [
        {"kind": f"{kind}: {PROBLEM_KINDS[kind]}", "what it means here": outcome, "times": len(problems)}
        for (kind, outcome), problems in kinds.items()
    ]
    listed = [
        {
            "what was found": _message(problem),
            "kind": problem.kind,
            "file": printable(problem.file.name),
            "row": str(problem.number or ""),
        }
        for problems in kinds.values()
        for problem in problems[:_LISTED]
    ]
    caption = f"The second table has the first {_LISTED} of each kind; mlic-train --check --all lists all."
    return Section(title, caption, [table(times), table(listed)])


def _message(problem: Problem) -> str:
    # A page that is passed on must not say where the data lies.
    folder = str(problem.file.parent)
    return problem.message.replace(f"{folder}/", "").replace(folder, "the folder of the file")
