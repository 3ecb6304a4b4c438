"""Model packages that are distributions of their own, found by entry point without running any of their code.

A distribution offers a model under the entry point group `mlic_runtime.models`: the entry point's name is the model's,
its value an importable package whose folder holds manifest.json and the files that it lists.
`mlic_train.exporting.wheel` writes such a distribution.
"""

import importlib.machinery
import importlib.util
import os
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
        """The model package.

        `find_spec` imports the parents of a dotted name, and so runs their code. It is asked for the first part only,
        which runs nothing, and which editable installations need (they bring finders of their own); the rest of
        the way is folders.

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
    """What distributions offer, by name, sorted; more than one under a name is a conflict, see `the_only_one`."""
    if not _may_be_offered():
        return {}
    # Here, because it costs 30 ms of CPU time (it loads email and zipfile), which those without such models save.
    from importlib.metadata import entry_points

    found: dict[str, tuple[InstalledModel, ...]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        source = "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        found[entry.name] = (*found.get(entry.name, ()), InstalledModel(entry.name, source, entry.value))
    return {name: tuple(sorted(found[name], key=lambda model: model.source)) for name in sorted(found)}


def the_only_one(models: tuple[InstalledModel, ...]) -> InstalledModel:
    """The model of a name that was found.

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
    """Whether `importlib.metadata` could find any of our entry points; False is certain.

    A look at the files that it would read takes 2 ms instead of 40. Where it has other means (a finder of its own, a
    zip file on the path, an egg), or a file cannot be read, it is asked.
    """
    path_finder = importlib.machinery.PathFinder
    if any(hasattr(finder, "find_distributions") and finder is not path_finder for finder in sys.meta_path):
        return True
    return any(_may_offer(folder) for folder in sys.path)


def _may_offer(folder: str) -> bool:
    if folder.lower().endswith(".egg"):
        return True
    try:
        with os.scandir(folder or ".") as entries:
            infos = [entry.path for entry in entries if entry.name.lower().endswith((".dist-info", ".egg-info"))]
    except FileNotFoundError:
        return False
    except OSError:
        return True
    for info in infos:
        try:
            with open(f"{info}/entry_points.txt", "rb") as stream:  # noqa: PTH123  a `Path` for each costs 3 ms in all
                if ENTRY_POINT_GROUP.encode() in stream.read():
                    return True
        except (FileNotFoundError, NotADirectoryError):
            continue  # no entry points; Debian's .egg-info are files
        except OSError:
            return True
    return False
