"""`mlic-infer --input --uncertain`."""

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mlic_runtime.base.files import open_regular, os_error_reason, replace_file, write_to
from mlic_runtime.base.progress import Progress
from mlic_runtime.base.text import encode
from mlic_runtime.batch.formats import BatchFormat
from mlic_runtime.batch.label_ids import read_label_ids
from mlic_runtime.batch.label_studio import LabelStudio, PictureAddresses, is_configuration, require_files
from mlic_runtime.batch.local import require_names
from mlic_runtime.batch.uncertainty import Choice, Margins, Uncertain, choose_uncertain
from mlic_runtime.errors import OutputError
from mlic_runtime.limits import MAX_OTHER_FILE_BYTES
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, open_rows
from mlic_runtime.tables.columns import STDIN

from .batch import FailedRows, make_format, raise_failed_rows, refuse_input_as_output, show_note, show_passed_over
from .command import output_stream
from .formats import LABEL_STUDIO
from .options import BatchOptions
from .single_input import input_stream


def run_uncertain(
    predictor: Predictor, source: str, format_name: str, options: PredictionOptions, batch: BatchOptions
) -> None:
    """Predict the rows of `source`, and write the `batch.uncertain` ones whose decisions are the least certain.

    They come in the order of their margins (see `batch.uncertainty`). Nothing is written before the last row, and then
    all at once. Rows that fail are shown on stderr.

    Raises:
        MlicError: the job failed; or it is complete, and at least one row failed.
    """
    assert batch.uncertain is not None
    if batch.output is not None:
        refuse_input_as_output(source, batch.output)
        _require_writable(Path(batch.output))
    else:
        output_stream()  # refused now where it is closed, not after hours
    ids = None if batch.label_ids is None else read_label_ids(Path(batch.label_ids), predictor.labels)
    format_ = None if format_name == LABEL_STUDIO else make_format(format_name, predictor.labels, ids)
    report = FailedRows(show=True)
    stream = input_stream("rows") if source == STDIN else source
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(
            open_rows(stream, image_root=batch.image_root, pictures=batch.pictures, captions=batch.captions)
        )
        show_note(reader.note)
        addresses = PictureAddresses(reader.root) if format_ is None and batch.pictures else None
        progress = Progress(sys.stderr, "row", reader.share)
        stack.callback(progress.close)
        results = predictor.stream_rows(
            _usable(iter(reader), format_name),
            dataclasses.replace(options, top_k=None),  # a margin needs all probabilities
            batch_size=batch.batch_size,
            workers=batch.workers,
        )
        stack.callback(results.close)
        choice = choose_uncertain(
            results,
            Margins(predictor.labels, predictor.thresholds(options)),
            batch.uncertain,
            on_error=batch.on_error,
            report=report,
            tick=lambda rows, errors: progress.show(rows, f"{errors} failed" if errors else ""),
        )
    show_passed_over(reader)
    if format_ is None:
        _write_tasks(choice, LabelStudio.of(choice.chosen, predictor.labels, addresses), batch.output, addresses)
    else:
        _write(batch.output, _records(format_, choice.chosen, options.top_k))
    raise_failed_rows(choice.errors, choice.rows, report.first)


def _usable(rows: Iterator[Row], format_name: str) -> Iterator[Row]:
    if format_name == "submission":
        return require_names(rows)
    return require_files(rows) if format_name == LABEL_STUDIO else rows


def _records(format_: BatchFormat, chosen: Sequence[Uncertain], top_k: int | None) -> str:
    return format_.header + "".join(format_.record(_shorten(row.prediction, top_k)) for row in chosen)


def _shorten(prediction: Prediction, top_k: int | None) -> Prediction:
    return dataclasses.replace(
        prediction, probabilities=dict(itertools.islice(prediction.probabilities.items(), top_k))
    )


def _write_tasks(choice: Choice, content: LabelStudio, output: str | None, addresses: PictureAddresses | None) -> None:
    """Write tasks, and their configuration beside them, as X.xml beside X.json; it goes to stderr without a file."""
    _write(output, content.tasks)
    beside = None if output is None else Path(output).with_suffix(".xml")
    if beside is None or (output is not None and beside == Path(output)):
        where = "their labelling configuration follows"
    elif beside.exists() and not _is_ours(beside):
        beside, where = None, f"{str(beside)!r} is another file and stays; their labelling configuration follows"
    else:
        _write(str(beside), content.configuration)
        where = f"{str(beside)!r} is their labelling configuration"
    wrote = f"wrote {len(choice.chosen)} of {choice.rows} rows, those nearest to their thresholds; {where}"
    show_note(wrote)
    folder = None
    if addresses is not None and any(row.prediction.image is not None for row in choice.chosen):
        show_note(addresses.advice())
        folder = addresses.folder
    place = "" if folder is None else f" into {folder.parent}, where its pictures are found,"
    show_note(
        f"when they are corrected, export them as JSON{place} and train with mlic-train --data DATA --also EXPORT.json"
    )
    if beside is None or output is None:
        click.echo(content.configuration, err=True, nl=False)


def _is_ours(file: Path) -> bool:
    """Return whether a file is a labelling configuration of an earlier run, which nobody has changed."""
    try:
        with open_regular(file) as stream:
            return is_configuration(stream.read(MAX_OTHER_FILE_BYTES).decode())
    except (OSError, ValueError):
        return False


def _require_writable(output: Path) -> None:
    """Find out before the first row whether the output can be written.

    Raises:
        OutputError: it cannot.
    """
    if output.exists() and not output.is_file():
        raise OutputError(f"the output {str(output)!r} is not a regular file: leave it out to write to stdout")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {str(output)!r}: there is no folder {str(folder)!r}; make it, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {str(output)!r}: the folder {str(folder)!r} cannot be written; name another")


def _write(output: str | None, text: str) -> None:
    """Write a file as a whole, or stdout."""
    if output is None:
        write_to(output_stream(), encode(text))
        return
    try:
        # A link is followed: renaming onto it would replace the link itself.
        replace_file(Path(output).resolve(), encode(text), mode=0o666)
    except OSError as error:
        raise OutputError(
            f"cannot write {output!r}: {os_error_reason(error)}; make room, or choose another place"
        ) from error
