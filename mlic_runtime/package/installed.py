"""Model packages that are distributions of their own, found by entry point. None of their code runs.

A distribution offers a model under the entry point group `mlic_runtime.models`: the entry point's name is the model's,
its value an importable package whose folder holds manifest.json and the files that it lists.
`mlic_train.exporting.wheel` writes such a distribution.
"""

import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.errors import PackageError

from .manifest import MANIFEST_NAME

ENTRY_POINT_GROUP = "mlic_runtime.models"


@dataclass(frozen=True)
class InstalledModel:
    """A model that a distribution offers.

    Attributes:
        name: of the model.
        source: the distribution's name and version.
        module: the dotted name of the package whose folder is the model package.
    """

    name: str
    source: str
    module: str

    def folder(self) -> Path:
        """Return the folder of the model package.

        `find_spec` imports the parents of a dotted name, which runs their code. So it gets the first part only, which
        runs nothing; editable installations need it, because they bring finders of their own. The other parts are
        folders.

        Raises:
            PackageError: no such package is installed, or manifest.json is not in it.
        """
        top, *below = parts = self.module.split(".")
        try:
            spec = importlib.util.find_spec(top) if all(part.isidentifier() for part in parts) else None
        except (ImportError, ValueError):  # ValueError: imported already, without a spec
            spec = None
        locations = None if spec is None else spec.submodule_search_locations
        if not locations:
            raise PackageError(
                f"model {self.name!r} of {self.source} should be in the package {self.module!r}, which is not there: "
                "install it again"
            )
        folders = [Path(location, *below) for location in locations]
        for folder in folders:
            if (folder / MANIFEST_NAME).is_file():
                return folder
        raise PackageError(
            f"model {self.name!r} of {self.source} has no {MANIFEST_NAME} in {folders[0]}: install it again"
        )


def installed_models() -> dict[str, tuple[InstalledModel, ...]]:
    """Return what distributions offer, by name, sorted; two under one name conflict, see `require_unique`."""
    if not _may_be_offered():
        return {}
    from importlib.metadata import entry_points  # here, see `_may_be_offered`

    models: dict[str, tuple[InstalledModel, ...]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        source = "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        models[entry.name] = (*models.get(entry.name, ()), InstalledModel(entry.name, source, entry.value))
    return {name: tuple(sorted(models[name], key=lambda model: model.source)) for name in sorted(models)}


def require_unique(models: tuple[InstalledModel, ...]) -> InstalledModel:
    """Return the one model of a name.

    Raises:
        PackageError: more than one distribution offers it.
    """
    if len(models) > 1:
        raise PackageError(
            f"model {models[0].name!r} is offered by {' and '.join(model.source for model in models)}: "
            "uninstall all but one, or give the folder of the one that you mean"
        )
    return models[0]


def _may_be_offered() -> bool:
    """Return whether `importlib.metadata` could find any of our entry points; False is certain.

    Searching the files that it would read takes 3 ms of CPU time. Loading and asking it takes 25 ms, of the 300 ms that
    a plain mlic-infer takes (on a 2-CPU Xeon with 149 distributions).
    """
    path_finder = importlib.machinery.PathFinder
    if any(hasattr(finder, "find_distributions") and finder is not path_finder for finder in sys.meta_path):
        return True
    group = ENTRY_POINT_GROUP.encode()
    try:
        for folder in map(Path, sys.path):
            if folder.suffix.lower() == ".egg" or folder.is_file():  # a file is a zip archive
                return True
            if any(group in file.read_bytes() for file in folder.glob("*.*-info/entry_points.txt")):
                return True
    except OSError:  # importlib.metadata may get further
        return True
    return False
