"""What `mlic-infer --engine ray` does: the job that its options describe."""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlic_runtime.base.far_files import absolute
from mlic_runtime.base.text import printable
from mlic_runtime.batch.local import identify
from mlic_runtime.errors import InputError
from mlic_runtime.package.model_package import MODEL_VARIABLE
from mlic_runtime.predict.prediction import Deciding
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.ray.engine import check_input, connected, require_ray, run_job
from mlic_runtime.ray.folder import ResultFolder
from mlic_runtime.ray.parts import Job
from mlic_runtime.rows.reader import open_rows

from .batch_options import BatchOptions


def run_on_ray(
    predictor: Predictor,
    source: str,
    model: str | None,
    loading: dict[str, Any],
    deciding: Deciding,
    options: BatchOptions,
) -> None:
    """Predict the rows of `source` on a Ray cluster, and write the results to a folder.

    Args:
        predictor: the model, as it is here; every worker loads its own and compares.
        source: what `--input` names.
        model: what `--model` names.
        loading: the other arguments of `Predictor.load`; `threads` are the CPUs of each actor.
        deciding: how to predict.
        options: everything else.

    Raises:
        MlicError: the job failed, or in the end a row had.
    """
    assert options.output is not None  # see `usage`
    require_ray()
    source = absolute(source)
    image_root = None if options.image_root is None else absolute(options.image_root)
    sides = {"pictures": options.pictures, "captions": options.captions}
    with open_rows(source, image_root=image_root, **sides) as reader:
        root, note = reader.root, reader.note
    if note:
        click.echo(f"Note: {printable(note)}", err=True)
    # The next multiple: batches are then cut as they are without Ray.
    rows_per_part = -(-options.rows_per_file // options.batch_size) * options.batch_size
    identity = identify(
        predictor,
        {
            "format": "parquet",
            "image_root": root if options.pictures else None,
            **sides,
            "batch_size": options.batch_size,
            "rows_per_file": rows_per_part,
            **asdict(deciding),
        },
    )
    cpus = predictor.session.threads
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(contextlib.closing(ResultFolder(options.output, identity, resume=options.resume)))
        job = Job(
            source=source,
            image_root=image_root,
            **sides,
            folder=folder.path,
            identity=identity,
            model=_for_workers(model),
            loading={**loading, "precision": predictor.precision},
            deciding=deciding,
            batch_size=options.batch_size,
            workers=options.workers or cpus,
            stop=options.on_error == "stop",
            rows_per_part=rows_per_part,
            done=frozenset(folder.done),
        )
        check_input(job, folder)
        marks, first = dict(folder.done), ""
        if not folder.complete:
            stack.enter_context(connected(options.address, cpus * (options.actors or 1)))
            marks, first = run_job(job, folder, options.actors, cpus)
            folder.finish(marks)
    errors = sum(mark.errors for mark in marks.values())
    if errors:
        rows = sum(mark.rows for mark in marks.values())
        raise InputError(f"{errors} of {rows} rows failed{f', the first of this run: {first}' if first else ''}")


def _for_workers(model: str | None) -> str | None:
    """What workers call the model: they have another current folder, and maybe another environment."""
    model = model or os.environ.get(MODEL_VARIABLE)
    return absolute(model) if model and Path(model).exists() else model
