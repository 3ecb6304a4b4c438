"""The page of `web/`, which the server and an exported web site share: its files, and the pictures of its example."""

import json
from pathlib import Path
from typing import Final

from mlic_runtime.errors import MlicError

PLACES: Final = "places.js"  # says where the model can run; the server answers with its own
PAGE_FILES: Final = (
    "index.html",
    "style.css",
    "page.js",
    PLACES,
    "in-browser.js",
    "on-server.js",
    "heatmap.js",
    "predictor.js",
    "package-reader.js",
    "picture.js",
    "orientation.js",
    "resize.js",
    "tokenizer.js",
    "errors.js",
)
EXAMPLE_FOLDER: Final = "examples"
# What "Try an example" shows.
_EXAMPLES = (
    ("cat.png", "A tabby cat looks at the camera."),
    ("astronaut.jpg", "A woman in an orange space suit smiles."),
    ("coffee.jpg", "A cup of coffee on a red saucer."),
)
_RUNTIME = Path(__file__).parents[1]


def read_page_files() -> dict[str, bytes]:
    """Return the files of the page, with its examples, as {path below the page: content}.

    Raises:
        MlicError: one of them is not there.
    """
    # They lie inside an installed package; a checkout has them at its top.
    folder = _RUNTIME.parent if (_RUNTIME / "pyproject.toml").is_file() else _RUNTIME
    names = [name for name, _ in _EXAMPLES]
    listed = [{"file": name, "caption": caption} for name, caption in _EXAMPLES]
    try:
        files = {name: (folder / "web" / name).read_bytes() for name in PAGE_FILES}
        files |= {f"{EXAMPLE_FOLDER}/{name}": (folder / EXAMPLE_FOLDER / name).read_bytes() for name in names}
    except OSError as error:
        raise MlicError(f"the page is not complete: {error.filename} is missing; install mlic-runtime again") from error
    return {**files, f"{EXAMPLE_FOLDER}/examples.json": (json.dumps(listed, indent=1) + "\n").encode()}
