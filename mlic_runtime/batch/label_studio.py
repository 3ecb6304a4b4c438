"""Predictions as tasks of Label Studio, for people to correct.

Formats: https://labelstud.io/guide/predictions (tasks with pre-annotations), https://labelstud.io/tags/choices (the
labelling configuration) and https://labelstud.io/guide/storage (pictures of the own machine).
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from mlic_runtime.base.far_files import is_uri, without_dots
from mlic_runtime.base.text import to_json
from mlic_runtime.errors import InputError
from mlic_runtime.rows.far_folder import FarFolder
from mlic_runtime.rows.reader import Row, picture_finder

from .uncertainty import Uncertain

# What `mlic-train` looks for in the exports: the keys of a task's data, and the name of its choices.
IMAGE, CAPTION, LABELS = "image", "caption", "labels"
LOCAL_FILES = "/data/local-files/?d="
# What `LabelStudio.configuration` looks like, with any labels.
_CONFIGURATION = re.compile(
    r'<View>\n(  <(Image|Text) name="(image|caption)" value="\$(image|caption)"/>\n)+'
    r'  <Choices name="labels" toName="(image|caption)" choice="multiple">\n'
    r"""(    <Choice value=("[^"\n]*"|'[^'\n]*')/>\n)*  </Choices>\n</View>\n"""
)


class PictureAddresses:
    """Where Label Studio finds the pictures of a folder.

    A picture of this machine is `/data/local-files/?d=FOLDER/NAME`: the name of the folder, then the path of the
    picture in it. Label Studio serves that with the parent of the folder as its document root, and the folder as a
    local storage of the project (which may not be the document root itself). A picture elsewhere is its own URI.

    Args:
        root: the folder of the pictures, a path or a URI.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._far = FarFolder(root) if is_uri(root) else None
        self._find = None if self._far else picture_finder(root)
        self.folder = None if self._far else Path("/", *without_dots(Path(root).absolute().parts))

    def address(self, name: str) -> str:
        """Return where Label Studio finds a picture, by its name in the rows."""
        if self._far is not None:
            return f"{self._root.partition('?')[0].rstrip('/')}/{self._far.locate(name)}"
        assert self.folder is not None
        assert self._find is not None
        inside = Path(str(self._find(name))).relative_to(self._root)
        return LOCAL_FILES + quote(
            PurePosixPath(self.folder.name, inside.as_posix()).as_posix().encode("utf-8", "surrogateescape")
        )

    def advice(self) -> str:
        """Return how Label Studio shows the pictures; "" where nothing is to be done."""
        if self.folder is None:
            return ""
        return (
            "Label Studio shows the pictures if it is started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(str(self.folder.parent))}, and the project has the "
            f"local storage {self.folder}"
        )


def require_files(rows: Iterator[Row]) -> Iterator[Row]:
    """Replace each row whose picture is inside the file of rows by an error: Label Studio could not show it."""
    for row in rows:
        if isinstance(row.image, bytes):
            message = "the picture is inside the file of rows; Label Studio needs pictures that are files of their own"
            yield Row(name=row.name, error=InputError(message))
        else:
            yield row


@dataclass(frozen=True, slots=True)
class LabelStudio:
    """Tasks and their labelling configuration.

    Every task has the same data, so that one configuration fits all: `image` if any row has a picture, `caption` if
    any has a caption, and "" where a row lacks it.

    Attributes:
        tasks: JSON, a list of tasks whose `predictions` are to be corrected. The score of a prediction is
            `Uncertain.confidence`, so that Label Studio's order by score is that of the uncertainty.
        configuration: XML, what a project shows and asks.
    """

    tasks: str
    configuration: str

    @classmethod
    def of(
        cls, chosen: Sequence[Uncertain], labels: tuple[str, ...], addresses: PictureAddresses | None
    ) -> "LabelStudio":
        """Make the tasks of rows, in this order.

        Args:
            chosen: the rows.
            labels: of the model.
            addresses: of the pictures; None leaves pictures out.
        """
        shown = [
            name
            for name, wanted in (
                (IMAGE, addresses is not None and any(row.prediction.image is not None for row in chosen)),
                (CAPTION, any(row.prediction.caption for row in chosen)),
            )
            if wanted
        ]
        target = shown[0] if shown else IMAGE
        tasks = [to_json(_task(row, shown, target, addresses), indent=None).rstrip("\n") for row in chosen]
        return cls("[\n" + ",\n".join(tasks) + "\n]\n", _configuration(labels, shown or [target], target))


def is_configuration(text: str) -> bool:
    """Return whether a text is a labelling configuration as it was written here, for whatever labels."""
    return _CONFIGURATION.fullmatch(text) is not None


def _task(row: Uncertain, shown: list[str], target: str, addresses: PictureAddresses | None) -> dict[str, Any]:
    prediction = row.prediction
    address = "" if addresses is None or prediction.image is None else addresses.address(prediction.image)
    data = {IMAGE: address, CAPTION: prediction.caption or ""}
    choices = {
        "id": LABELS,
        "from_name": LABELS,
        "to_name": target,
        "type": "choices",
        "value": {"choices": list(prediction.labels)},
    }
    return {
        "data": {name: data[name] for name in shown},
        "predictions": [
            {
                "model_version": prediction.model,
                "score": round(row.confidence, 6),
                "result": [choices] if prediction.labels else [],
            }
        ],
    }


def _configuration(labels: tuple[str, ...], shown: list[str], target: str) -> str:
    """Return the labelling configuration: any number of labels may be chosen, also none."""
    tags = {IMAGE: "Image", CAPTION: "Text"}
    return "".join(
        f"{line}\n"
        for line in [
            "<View>",
            *(f'  <{tags[name]} name="{name}" value="${name}"/>' for name in shown),
            f'  <Choices name="{LABELS}" toName="{target}" choice="multiple">',
            *(f"    <Choice value={quoteattr(label)}/>" for label in labels),
            "  </Choices>",
            "</View>",
        ]
    )
