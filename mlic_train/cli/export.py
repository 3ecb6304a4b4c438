"""`mlic-export`. stdout is data, stderr is progress; torch is imported when work begins."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlic_runtime.base.progress import log_line
from mlic_runtime.cli.command import MlicCommand, write
from mlic_runtime.cli.fields import FOLDER, NEW_FILE, NEW_FOLDER
from mlic_runtime.package.archive import ARCHIVE_SUFFIX
from mlic_runtime.package.manifest import PRECISIONS
from mlic_train.config import MODELS

from .data_options import data_from, data_options

if TYPE_CHECKING:
    from mlic_train.data.splits import Splits


def _precisions(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    unknown = next((name for name in names if name not in PRECISIONS), None)
    if unknown is not None:
        raise click.BadParameter(f"{unknown!r} is none of {', '.join(PRECISIONS)}")
    if len(set(names)) != len(names):
        raise click.BadParameter(f"{value!r} names a precision twice")
    return names


@click.command(cls=MlicCommand, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
@click.option("--run", type=FOLDER, help="A run folder.  [default: the newest, else the released model]")
@click.option(
    "--output",
    type=NEW_FOLDER,
    help="The package's folder, the Triton model repository or the site.  [default: RUN/package, triton or site]",
)
@click.option(
    "--precision",
    "precisions",
    callback=_precisions,
    default="fp32",
    metavar="NAME[,NAME...]",
    help=f"Which graphs to write, of {', '.join(PRECISIONS)}. All but fp32 need --data. Give both int8 and int8-full, "
    "and the runtime takes the one that suits its processor: int8-full has 8-bit weights, for processors with VNNI or "
    "the ARM dot product; int8 has 7-bit ones, for all. A site has one graph: int8, if it can be had.",
)
@click.option(
    "--latency",
    is_flag=True,
    help="Measure the graphs on this machine, and recommend the fastest to the runtime; no two exports are then equal.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    default=0.5,
    help="Refuse a graph that loses more than this of validation samples F1, in points (hundredths).",
)
@click.option(
    "--plot",
    type=NEW_FILE,
    help="With --latency: draw F1 against latency and size to this file, a .png or .svg.",
)
@click.option(
    "--layout",
    type=click.Choice(("package", "triton", "web")),
    default="package",
    help="What to write: a model package, or instead of it the model's folder in a Triton model repository, or a web "
    "site that runs the model in the browser.",
)
@click.option(
    "--evidence/--no-evidence",
    default=True,
    help="Let the graphs say where in the picture and the caption a label comes from. It costs no time where nobody "
    "asks.",
)
@click.option("--package-version", default="0.1.0", help="The package's version.")
@click.option("--single-file", is_flag=True, help="Write the package as one file too, OUTPUT.mlic.")
@click.option("--wheel", is_flag=True, help="Write the package as a wheel too, beside OUTPUT; pip installs it.")
@click.option(
    "--package",
    type=click.Path(path_type=Path),
    help="With --layout web: a model package that exists, or the name of an installed one, instead of a run.",
)
@click.option(
    "--npm-archives",
    type=FOLDER,
    help="With --layout web: a folder with the archives of the JavaScript libraries, where there is no network.",
)
@click.option(
    "--model", "name", type=click.Choice(MODELS), help="Take the newest run of this model.  [default: of any]"
)
@click.option("--runs", type=NEW_FOLDER, default=Path("runs"), help="The folder of runs.")
@click.option("--save-checkpoint", type=NEW_FOLDER, help="Write a half-precision checkpoint and export that.")
@data_options
@click.pass_context
def export(context: click.Context, /, name: str | None, **options: Any) -> None:
    """Export a trained model as a model package: ONNX graph, tokenizer, manifest, card.

    Without options the newest run is exported, into its own folder. The graph is compared with PyTorch first, and the
    table says how; if they differ, nothing is written.

    With --data the graph is compared on all rows of val and test as well, and its metrics are measured anew. Without,
    they are those of the training. The same model, data and options give the same bytes, but for --latency.

    \b
    mlic-export
    mlic-export --run runs/hybrid --data my-data --precision fp32,int8-full,int8 --latency --output packages/hybrid
    mlic-export --run runs/hybrid --layout triton --output model-repository
    mlic-export --layout web --output site
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.exporting.archive import write_archive
    from mlic_train.exporting.package import ExportOptions, export_package
    from mlic_train.exporting.parity import parity_table
    from mlic_train.exporting.triton import export_triton
    from mlic_train.exporting.wheel import normalise_version, write_wheel
    from mlic_train.report.precisions import plot_precisions
    from mlic_train.runs.find import default_package, find_run
    from mlic_train.runs.folder import load_trained, save_half

    if options["plot"] and not (options["latency"] and (options["folder"] or options["train"])):
        raise click.UsageError("--plot draws what --latency and --data measure; give both")
    if options["layout"] != "package" and (options["single_file"] or options["wheel"]):
        raise click.UsageError(
            f"--single-file and --wheel write a model package; leave --layout {options['layout']} out"
        )
    for option in ("package", "npm_archives"):
        if options[option] is not None and options["layout"] != "web":
            raise click.UsageError(f"--{option.replace('_', '-')} belongs to --layout web")
    if options["layout"] == "web":
        precision_given = context.get_parameter_source("precisions") is not click.core.ParameterSource.DEFAULT
        _export_site(name, options, precision_given)
        return
    if options["wheel"]:
        normalise_version(options["package_version"])  # refused now, not when everything is measured
    folder = options["run"] or find_run(options["runs"], name)
    trained = load_trained(folder)
    if name not in (None, trained.config.model.name):
        raise click.UsageError(f"{folder} holds a {trained.config.model.name}, not a {name}; leave --model out")
    given, name = name, trained.config.model.name
    output = options["output"] or (default_package(folder) if options["layout"] == "package" else Path("triton"))
    chosen = "" if options["run"] else f", the newest run in {options['runs']}"
    if not options["run"] and folder.parent != options["runs"]:
        chosen = f", the released model, as {options['runs']} has no finished run" + (f" of {name}" if given else "")
    log_line(f"exporting {folder} ({name}{chosen}) to {output}")
    if options["save_checkpoint"]:
        trained = save_half(trained, options["save_checkpoint"])
    splits = _splits(options, folder)
    export_as = export_package if options["layout"] == "package" else export_triton
    wanted = ExportOptions(
        version=options["package_version"],
        precisions=options["precisions"],
        max_drop=options["max_drop"],
        latency=options["latency"],
        evidence=options["evidence"],
    )
    manifest = export_as(trained, output, wanted, splits=splits, log=log_line)
    files = []
    if options["plot"]:
        plot_precisions(manifest, options["plot"])
    if options["single_file"]:
        files.append(output.with_name(f"{output.name}{ARCHIVE_SUFFIX}"))
        write_archive(output, files[-1])
    if options["wheel"]:
        files.append(write_wheel(output, output.parent))
    named = "".join(f"{file}\n" for file in files)
    kept = ", ".join(map(str, [output, *files]))
    write(parity_table(manifest.parity) + named, kept=f"what was exported is in {kept}")


def _splits(options: dict[str, Any], run: Path) -> "Splits | None":
    """Read the data that the options name, and say how; None without any."""
    from mlic_train.data.splits import load_splits

    data = data_from(options)
    splits = load_splits(data, runs=[run]) if data.has_training_rows else None
    for line in splits.lines() if splits is not None else ():
        log_line(line)
    return splits


def _export_site(name: str | None, options: dict[str, Any], precision_given: bool) -> None:
    """Write a web site, from a package that exists or from a run, which is exported first."""
    from tempfile import TemporaryDirectory

    from mlic_runtime.package.model_package import load_package
    from mlic_train.exporting.package import ExportOptions, export_package
    from mlic_train.exporting.web import export_site
    from mlic_train.runs.find import newest_run
    from mlic_train.runs.folder import load_trained

    if options["package"] is not None and options["run"] is not None:
        raise click.UsageError("give --package or --run, not both")
    if precision_given and len(options["precisions"]) != 1:
        raise click.UsageError(f"a site has one graph; give one --precision, not {', '.join(options['precisions'])}")
    precision = options["precisions"][0] if precision_given else None
    output = options["output"] or Path("site")
    run = None if options["package"] is not None else options["run"] or newest_run(options["runs"], name)
    with TemporaryDirectory() as temporary:
        if run is None:
            package = load_package(options["package"] or name)
            log_line(f"making a site of {package.manifest.title} ({package.path}) in {output}")
        else:
            splits = _splits(options, run)
            chosen = precision or ("int8" if splits is not None else "fp32")
            hint = (
                "" if chosen == "int8" or precision_given else "; with --data it would be int8, a quarter of the bytes"
            )
            log_line(f"making a site of {run} ({chosen}{hint}) in {output}")
            wanted = ExportOptions(
                version=options["package_version"],
                precisions=(chosen,),
                max_drop=options["max_drop"],
                evidence=options["evidence"],
            )
            export_package(load_trained(run), Path(temporary, "package"), wanted, splits=splits, log=log_line)
            package = load_package(Path(temporary, "package"))
        export_site(package, output, precision=precision, archives=options["npm_archives"], log=log_line)
    write(f"python -m http.server --bind 127.0.0.1 --directory {output}\n", kept=f"the site is in {output}")
    log_line("to see it: run the line above, then open http://127.0.0.1:8000")
