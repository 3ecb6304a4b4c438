"""`mlic-infer --input --engine ray`."""

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import Any

from mlic_runtime.base.far_files import absolute
from mlic_runtime.batch.local import identify_job
from mlic_runtime.package.model_package import MODEL_VARIABLE
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.ray.engine import check_input, connected, require_ray, run_job
from mlic_runtime.ray.folder import ResultFolder
from mlic_runtime.ray.parts import Job
from mlic_runtime.rows.reader import open_rows

from .batch import raise_failed_rows, show_note, show_passed_over
from .options import BatchOptions


def run_on_ray(
    predictor: Predictor,
    source: str,
    model: str | None,
    loading: dict[str, Any],
    options: PredictionOptions,
    batch: BatchOptions,
) -> None:
    """Predict the rows of `source`, the value of `--input`, on a Ray cluster, and write the results to a folder.

    Every worker loads the model itself, with the arguments `model` and `loading` of `Predictor.load`, and compares it
    with `predictor`.

    Raises:
        MlicError: the job failed; or it is complete, and at least one row failed.
    """
    assert batch.output is not None  # see `checks`
    require_ray()
    source = absolute(source)
    image_root = None if batch.image_root is None else absolute(batch.image_root)
    sides: dict[str, Any] = {"pictures": batch.pictures, "captions": batch.captions}
    columns: dict[str, Any] = {"image_column": batch.image_column, "caption_column": batch.caption_column}
    with open_rows(source, image_root=image_root, **sides, **columns) as reader:
        root, note = reader.root, reader.note
    show_note(note)
    # Rounded up to whole batches, so that batches are the same as without Ray.
    rows_per_part = -(-batch.rows_per_file // batch.batch_size) * batch.batch_size
    more = {
        "format": "parquet",
        "image_root": root if batch.pictures else None,
        **sides,
        "batch_size": batch.batch_size,
        "rows_per_file": rows_per_part,
    }
    identity = identify_job(predictor, options, more)
    cpus = predictor.session.threads
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(contextlib.closing(ResultFolder(batch.output, identity, resume=batch.resume)))
        job = Job(
            source=source,
            image_root=image_root,
            **sides,
            **columns,
            folder=folder.path,
            identity=identity,
            model=_for_workers(model),
            loading={**loading, "precision": predictor.precision},
            options=options,
            batch_size=batch.batch_size,
            workers=batch.workers or cpus,
            stop=batch.on_error == "stop",
            rows_per_part=rows_per_part,
            done=frozenset(folder.done),
        )
        check_input(job, folder)
        summaries, first = folder.done, ""
        if not folder.complete:
            stack.enter_context(connected(batch.address, cpus * (batch.actors or 1)))
            summaries, first = run_job(job, folder, batch.actors, cpus)
            folder.finish(summaries)
    # Another process has read the rows.
    with open_rows(source, image_root=image_root, **sides) as reader:
        if reader.passed_over is not None:
            deque(reader, maxlen=0)
            show_passed_over(reader)
    errors = sum(summary.errors for summary in summaries.values())
    raise_failed_rows(errors, sum(summary.rows for summary in summaries.values()), first)


def _for_workers(model: str | None) -> str | None:
    """Return a name for the model that works in other folders and with other environment variables."""
    model = model or os.environ.get(MODEL_VARIABLE)
    return absolute(model) if model and Path(model).exists() else model
