"""The models that can be used here without naming a path, broken ones included."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlic_runtime.errors import MlicError

from .installed import InstalledModel, installed_models, require_unique
from .model_package import MODEL_VARIABLE, bundled_models, find_package, load_package

BUNDLED = "bundled"


@dataclass(frozen=True)
class ListedModel:
    """One line of the list.

    Attributes:
        name: what `Predictor.load` and `--model` call it.
        version: of the model package.
        precisions: of its graphs.
        bytes: its size on disk.
        source: where it comes from: "bundled", a distribution's name and version, or "$MLIC_MODEL".
        path: the folder or `.mlic` file.
        error: why it cannot be used, or None; with an error, everything but `name` and `source` may be missing.
    """

    name: str
    source: str
    version: str | None = None
    precisions: tuple[str, ...] = ()
    bytes: int | None = None
    path: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for `json.dumps`."""
        return {**asdict(self), "precisions": list(self.precisions)}


def list_models() -> list[ListedModel]:
    """Return the model of `$MLIC_MODEL`, if that is a path; then the installed and bundled models, sorted by name.

    A bundled model is left out if an installed one has its name, because the name means the installed one. Manifests
    are read; the files that they list are not verified. A broken model does not hide the others.
    """
    installed, bundled = installed_models(), bundled_models()
    listed = []
    chosen = os.environ.get(MODEL_VARIABLE)
    if chosen and (Path(chosen).exists() or chosen not in {*installed, *bundled}):
        listed.append(_list_model(chosen, f"${MODEL_VARIABLE}", find_package))
    for name in sorted({*installed, *bundled}):
        models = installed.get(name)
        if models is None:
            listed.append(_list_model(name, BUNDLED, partial(Path, bundled[name])))
        else:
            listed += [_list_model(name, model.source, partial(_folder, models)) for model in models]
    return listed


def _list_model(name: str, source: str, locate: Callable[[], Path]) -> ListedModel:
    path = None
    try:
        path = locate()
        package = load_package(path)
        size = package.storage.disk_bytes()
    except MlicError as error:
        return ListedModel(name, source, path=None if path is None else str(path), error=str(error))
    manifest = package.manifest
    return ListedModel(name, source, manifest.version, manifest.precisions, size, str(path))


def _folder(models: tuple[InstalledModel, ...]) -> Path:
    return require_unique(models).folder()
