"""The order of the rooms, as pyproject.toml says it, holds in the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    line = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)


def test_every_room_imports_from_rooms_below_it_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_arrow_upwards_is_found(tmp_path: Path) -> None:
    """The check can fail: the same contracts, over a copy in which the ground floor knows the commands."""
    for name in ("mlic_runtime", "mlic_train"):
        for path in (ROOT / name).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    with (tmp_path / "mlic_runtime" / "base" / "text.py").open("a") as module:
        module.write("\nimport mlic_runtime.cli.infer\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "mlic_runtime.base.text -> mlic_runtime.cli.infer" in done.stdout
