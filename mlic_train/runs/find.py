"""Find a trained model by name: the newest run, else the released checkpoint."""

from pathlib import Path

from mlic_train.errors import CheckpointError

from .folder import BEST_NAME, read_run_config

PACKAGE_NAME = "package"  # the folder inside a run, in which its model package lies
_RELEASED = Path(__file__).parents[1] / "released"


def newest_run(root: Path, name: str | None = None) -> Path | None:
    """Return the run folder below `root` with the newest best checkpoint; None without one.

    Args:
        root: the folder of runs.
        name: of the model; None stands for any.
    """
    runs = []
    for best in sorted(root.glob(f"*/{BEST_NAME}")):
        if name is None or read_run_config(best.parent).model.name == name:
            runs.append((best.stat().st_mtime_ns, best.parent))
    return max(runs)[1] if runs else None


def run_called(name: str) -> Path:
    """Return the run folder `name`, or the released checkpoint's of a model of that name.

    Raises:
        CheckpointError: there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).name == name and (released := released_run(name)) is not None:
        return released
    raise CheckpointError(f"{name!r} is neither a run folder nor a released model; give the folder of a finished run")


def released_run(name: str) -> Path | None:
    """Return the folder of the released checkpoint of that model in this package; None without one."""
    folder = _RELEASED / name
    return folder if (folder / BEST_NAME).is_file() else None


def default_package(run: Path) -> Path:
    """Return where a run's model package is written if nothing else is said: inside the run's folder.

    A released checkpoint belongs to the installation, so its package is written to the working directory.
    """
    return Path(PACKAGE_NAME) if run.resolve().parent == _RELEASED.resolve() else run / PACKAGE_NAME


def find_run(root: Path, name: str | None = None) -> Path:
    """Return the newest run's folder, else the released checkpoint's.

    Args:
        root: the folder of runs.
        name: of the model; None stands for any run's, and for the released hybrid.

    Raises:
        CheckpointError: there is neither.
    """
    folder = newest_run(root, name) or released_run(name or "hybrid")
    if folder is None:
        raise CheckpointError(
            f"no finished run of {name} in {root} and no released one; train it: mlic-train --model {name}"
        )
    return folder
