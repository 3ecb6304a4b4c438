"""Which trained model is meant: the newest run of a name, else the released one."""

from pathlib import Path

from mlic_train.errors import CheckpointError

from .checkpoint import BEST_NAME, read_run_config

_RELEASED = Path(__file__).parents[1] / "released"


def newest_run(root: Path, name: str) -> Path | None:
    """The run folder below `root` of a model of that name whose best checkpoint is the youngest; None without one."""
    found = []
    for best in sorted(root.glob(f"*/{BEST_NAME}")):
        if read_run_config(best.parent).model.name == name:
            found.append((best.stat().st_mtime_ns, best.parent))
    return max(found)[1] if found else None


def released_run(name: str) -> Path | None:
    """The folder of the released checkpoint of that model, part of this package; None without one."""
    folder = _RELEASED / name
    return folder if (folder / BEST_NAME).is_file() else None


def find_run(root: Path, name: str) -> Path:
    """The newest run's folder, else the released checkpoint's.

    Raises:
        CheckpointError: there is neither.
    """
    found = newest_run(root, name) or released_run(name)
    if found is None:
        raise CheckpointError(
            f"no finished run of {name} in {root} and no released one; train it: mlic-train --model {name}"
        )
    return found
