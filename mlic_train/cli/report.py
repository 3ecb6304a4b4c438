"""`mlic-report`: stdout names the file that was written, stderr is progress; plots are imported when work begins."""

from pathlib import Path
from typing import Any

import click

from mlic_runtime.base.progress import log_line
from mlic_runtime.cli.command import MlicCommand, MlicGroup, write
from mlic_runtime.cli.fields import FILE, FOLDER, NEW_FILE

from .data_options import data_from, data_options

_SPLIT = click.option("--split", type=click.Choice(["val", "test"]), default="val", help="The rows to measure on.")


@click.group(cls=MlicGroup, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
def report() -> None:
    """Look at data and at runs: every report is one HTML file that opens without a network."""


@report.command(cls=MlicCommand, short_help="Show what is in the data.")
@data_options
@click.option("--output", type=NEW_FILE, default=Path("reports", "data.html"), help="The HTML file to write.")
def data(output: Path, **options: Any) -> None:
    """Show what is in the data: labels, pictures, captions, and what the splits share.

    \b
    mlic-report data --data my-data
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.report.data import write_data_report

    write_data_report(data_from(options), output)
    _print_path(output)


@report.command(cls=MlicCommand, short_help="Show what a run learned.")
@click.argument("run_folder", metavar="RUN", type=FOLDER)
@data_options
@_SPLIT
@click.option("--picture", type=FILE, help="Show feature maps of this picture.  [default: a picture of the split]")
@click.option("--worst", type=click.IntRange(0), default=12, help="False positives, and false negatives, to show.")
@click.option("--output", type=NEW_FILE, help="The HTML file to write.  [default: RUN/report.html]")
def run(run_folder: Path, split: str, picture: Path | None, worst: int, output: Path | None, **options: Any) -> None:
    """Show what the run in the folder RUN learned, measured on one split of the data.

    \b
    mlic-report run runs/hybrid --data my-data
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.report.run import write_run_report

    output = output or run_folder / "report.html"
    write_run_report(run_folder, data_from(options), output, split=split, picture=picture, worst=worst)
    _print_path(output)


@report.command(cls=MlicCommand, short_help="Put runs side by side.")
@click.argument("runs", metavar="RUN RUN...", type=FOLDER, nargs=-1, required=True)
@data_options
@_SPLIT
@click.option("--output", type=NEW_FILE, default=Path("reports", "compare.html"), help="The HTML file to write.")
@click.option(
    "--format", "output_format", type=click.Choice(["table", "csv", "json"]), default="table", help="What is printed."
)
def compare(runs: tuple[Path, ...], split: str, output: Path, output_format: str, **options: Any) -> None:
    """Put runs side by side, as a page and as data on stdout.

    The metrics that are stored with the runs are compared. With --data, all runs are measured anew on the rows that
    every run can use, and their difference to the first run gets an interval.

    \b
    mlic-report compare runs/hybrid runs/late --data my-data
    """  # noqa: D301 # click needs the backspace itself
    if len(runs) < 2:
        raise click.UsageError("give two runs or more, such as: mlic-report compare runs/a runs/b")
    from mlic_train.report.compare import write_comparison
    from mlic_train.report.comparison import as_csv, as_json, as_table, compare_runs
    from mlic_train.report.page import check_writable

    check_writable(output)
    given = data_from(options)
    comparison = compare_runs(runs, given if given.has_training_rows else None, split=split)
    write_comparison(comparison, output)
    log_line(f"wrote {output}")
    formats = {"table": as_table, "csv": as_csv, "json": as_json}
    write(formats[output_format](comparison), kept=_where(output))


def _print_path(report: Path) -> None:
    write(f"{report}\n", kept=_where(report))


def _where(report: Path) -> str:
    return f"the report is in {report}"
