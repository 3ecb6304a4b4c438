"""Options of teachers: trained models whose answers become soft labels."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlic_runtime.base.option import check, option
from mlic_train.errors import ConfigError

TEACHER_SEES = ("both", "caption", "picture")

_teacher = partial(option, group="Teachers")


@dataclass(frozen=True)
class Distillation:
    """Who teaches, and what.

    `images` is the pictures' folder of `pseudo_label`; None: `images` beside each file, else the file's own folder.
    With `skip_bad_rows` bad rows of these files are left out and logged.

    Raises:
        ConfigError: unlabelled rows without a teacher, or another `sees`.
    """

    teachers: tuple[Path, ...] = _teacher(
        (),
        "Run folder of a finished model that gives soft labels; may be repeated.",
        flag="teacher",
        path="folder",
    )
    pseudo_label: tuple[Path, ...] = _teacher(
        (), "Unlabelled rows with pictures (and captions where there are any), for the teachers.", path="file"
    )
    pseudo_captions: tuple[Path, ...] = _teacher(
        (), "Unlabelled captions, for the teachers; pictures that they name are not looked for.", path="file"
    )
    sees: str = _teacher("both", "What teachers see of a row that has both.", choices=TEACHER_SEES, flag="teacher-sees")
    images: Path | None = None
    skip_bad_rows: bool = False
    soft_labels: tuple[Path, ...] = _teacher(
        (), "Probabilities of any other model: CSV or Parquet with a column for each label, or JSON lines.", path="file"
    )
    soft_weight: float = _teacher(1.0, "Weight of all --soft-labels together, where a --teacher has 1.", low=0.001)
    soft_temperature: float = _teacher(1.0, "Divides the logits of --soft-labels; above 1 is softer.", low=0.01)

    def __post_init__(self) -> None:
        check(self, ConfigError)
        if self.files and not self.teachers:
            raise ConfigError(f"nothing can label the rows of {self.files[0]}: give --teacher RUN")

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of rows without labels."""
        return (*self.pseudo_label, *self.pseudo_captions)
