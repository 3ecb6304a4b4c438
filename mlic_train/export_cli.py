"""`mlic-export`. stdout is data, stderr is progress; torch is imported when work begins."""

from pathlib import Path
from typing import Any

import click

from mlic_runtime.cli import MlicCommand

from .config import MODELS
from .data_options import data_from, data_options
from .progress import log_line

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(cls=MlicCommand, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
@click.option("--model", "name", type=click.Choice(MODELS), default="hybrid", help="What to export.")
@click.option("--run", type=_FOLDER, help="A run folder.  [default: the newest of the model, else the released one]")
@click.option("--runs", type=_NEW_FOLDER, default=Path("runs"), help="Where runs are looked for.")
@click.option("--output", type=_NEW_FOLDER, help="The package's folder.  [default: exported/MODEL]")
@click.option("--package-version", default="0.1.0", help="The package's version.")
@click.option("--save-checkpoint", type=_NEW_FOLDER, help="Write a half-precision checkpoint and export that.")
@data_options
def export(name: str, **options: Any) -> None:
    """Export a trained model as a model package: ONNX graph, tokenizer, manifest, card.

    The graph is compared with PyTorch first; if they differ, nothing is written. With --data the package's metrics are
    measured anew, with the exported graph itself; without, they are those of the checkpoint.

    \b
    mlic-export --model hybrid
    mlic-export --run runs/hybrid --data my-data --output packages/hybrid
    """  # noqa: D301 # click needs the backspace itself
    from .checkpoint import load_trained, save_half
    from .export import export_package
    from .runs import find_run
    from .splits import load_splits

    folder = options["run"] or find_run(options["runs"], name)
    trained = load_trained(folder)
    if trained.config.model.name != name:
        raise click.UsageError(f"{folder} holds a {trained.config.model.name}, not a {name}; give --model")
    output = options["output"] or Path("exported", name)
    log_line(f"exporting {folder} to {output}")
    if options["save_checkpoint"]:
        trained = save_half(trained, options["save_checkpoint"])
    data = data_from(options)
    splits = load_splits(data) if data.folder or data.train else None
    manifest = export_package(trained, output, version=options["package_version"], splits=splits, log=log_line)
    for precision, parity in manifest.parity.items():
        click.echo(
            f"{output}: {precision}, {parity.shapes} shapes, {parity.rows} rows, "
            f"max |difference| {parity.max_abs_difference:.2g}, {parity.equal_decisions:.1%} equal decisions"
        )
