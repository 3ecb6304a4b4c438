"""Measures what pip downloads and installs: for the runtime, and for the same prediction with PyTorch.

    python benchmarks/footprint.py --output benchmarks/results/footprint-2cpu-xeon.json

For each set of requirements it sums up the wheels that pip downloads. It then installs them into a new virtual
environment and measures how much the environment grows, byte code included. `cold_start.py` measures memory.
"""

import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import click
from common import ROOT, describe, output_option, write_json

RUNTIME = str(ROOT / "mlic_runtime")
# For PyTorch: what the prediction in `cold_start.py` imports to read a picture and a caption and to run the model.
WAYS = {"runtime": [RUNTIME], "pytorch": ["torch", "torchvision", "timm", "tokenizers", "pillow", "safetensors"]}


def measure(requirements: list[str], folder: Path) -> dict[str, Any]:
    """Download and install requirements.

    Returns:
        Bytes downloaded and installed, the number of distributions, and the five largest with their wheels' bytes.

    Raises:
        click.ClickException: pip failed.
    """
    wheels, environment = folder / "wheels", folder / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    packages = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    pip = ["-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
    # The runtime is built as a wheel, too, because a device gets a wheel.
    _run(python, *pip, "wheel", "--quiet", "--wheel-dir", str(wheels), *requirements)
    files = {path.name: path.stat().st_size for path in wheels.iterdir()}
    before = _size(packages)
    _run(python, *pip, "install", "--quiet", "--no-index", "--no-deps", *(str(wheels / name) for name in files))
    return {
        "downloaded_bytes": sum(files.values()),
        "installed_bytes": _size(packages) - before,
        "distributions": len(files),
        "largest_wheels": dict(sorted(files.items(), key=lambda item: -item[1])[:5]),
    }


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _run(python: Path, *arguments: str) -> str:
    done = subprocess.run([str(python), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{shlex.join(arguments)[:200]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _ways(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    ways = {}
    for value in values:
        name, equals, requirements = value.partition("=")
        if not (name and equals and requirements):
            raise click.BadParameter(f"expected NAME=REQUIREMENTS, found {value!r}")
        ways[name] = shlex.split(requirements)
    return ways


@click.command()
@click.option(
    "--way", "ways", multiple=True, callback=_ways, help='Another way, such as cpu="torch==2.9.0+cpu pillow". Repeat.'
)
@output_option
def main(ways: dict[str, list[str]], output: Path | None) -> None:
    """Measure downloads and installations."""
    measured = {}
    for name, requirements in (WAYS | ways).items():
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = measure(requirements, Path(folder))
        shown = " ".join("./mlic_runtime" if requirement == RUNTIME else requirement for requirement in requirements)
        measured[name]["requirements"] = shown
        megabytes = [measured[name][key] / 1e6 for key in ("downloaded_bytes", "installed_bytes")]
        click.echo(f"{name:10} {megabytes[0]:7.1f} MB downloaded, {megabytes[1]:7.1f} MB installed: {shown}")
    write_json(
        output, describe("bytes of the wheels that pip downloads, and of what they install", ()) | {"ways": measured}
    )


if __name__ == "__main__":
    main()
