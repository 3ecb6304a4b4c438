"""The installation of docs/run/gpu.md, resolved by pip among wheels made up here: no network."""

import base64
import hashlib
import os
import re
import shlex
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "run" / "gpu.md").read_text("utf-8")

# Newer than any that is asked for, and so never in the way of a lower bound.
STAND_INS = {
    "click": "99",
    "numpy": "99",
    "pillow": "99",
    "tokenizers": "99",
    "onnxruntime": "99",
    "onnxruntime-gpu": "98",
}

CONFLICT = "from mlic_runtime.providers.distributions import conflict; print(conflict('cuda'))"
IMPORT = """
from mlic_runtime import MlicError
try:
    from mlic_runtime.providers import library
except MlicError as error:
    print(error)
"""

Run = Callable[..., str]


def documented_commands() -> list[list[str]]:
    block = PAGE.split("```")[1]
    return [shlex.split(line) for line in block.strip().splitlines() if line.startswith("pip ")]


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with the package that the distribution of this name has."""
    package = "onnxruntime" if name.startswith("onnxruntime") else name
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    extras = "Provides-Extra: cuda\nProvides-Extra: cudnn\n" if name == "onnxruntime-gpu" else ""
    files = {
        f"{package}/__init__.py": f"whose = {name!r}\n",
        f"{package}/{name}.txt": "what no other distribution has\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that pip can find."""
    folder = tmp_path_factory.mktemp("index")
    for name, version in STAND_INS.items():
        write_wheel(folder, name, version)
    return folder


@pytest.fixture
def run(tmp_path: Path, index: Path, wheel: Path) -> Run:
    """Run `pip ...` or `python ...` in a new environment; the runtime's folder stands for its wheel."""
    venv.create(tmp_path / "env", with_pip=False)
    python = str(tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    environ |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}

    def execute(program: str, *arguments: str) -> str:
        start = [python] if program == "python" else [sys.executable, "-m", "pip", "--python", python]
        replaced = [str(wheel) if argument == "./mlic_runtime" else argument for argument in arguments]
        done = subprocess.run(
            [*start, *replaced], capture_output=True, text=True, check=False, cwd=tmp_path, env=environ
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return execute


def runtimes(environment: Path) -> set[str]:
    """The distributions of ONNX Runtime that are installed."""
    found = {path.name.partition("-")[0] for path in environment.rglob("*.dist-info")}
    return {name for name in found if name.startswith("onnxruntime")}


def test_the_documented_packages_are_the_dependencies() -> None:
    text = (ROOT / "mlic_runtime" / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    needed = re.findall(r'"(.+?)"', listed[1])
    assert sum(name.startswith("onnxruntime") for name in needed) == 1
    assert documented_commands() == [
        ["pip", "install", *(name.replace("onnxruntime", "onnxruntime-gpu[cuda,cudnn]") for name in needed)],
        ["pip", "install", "--no-deps", "./mlic_runtime"],
    ]


def test_the_documented_installation_leaves_one_onnxruntime(run: Run, tmp_path: Path) -> None:
    for program, *arguments in documented_commands():
        run(program, *arguments)
    assert runtimes(tmp_path) == {"onnxruntime_gpu"}
    assert run("python", "-c", f"import onnxruntime; print(onnxruntime.whose); {CONFLICT}") == "onnxruntime-gpu\nNone\n"


def test_the_plain_installation_brings_the_cpu_build_and_a_second_one_is_detected(run: Run, tmp_path: Path) -> None:
    run("pip", "install", "./mlic_runtime")
    assert runtimes(tmp_path) == {"onnxruntime"}
    assert run("python", "-c", CONFLICT) == "None\n"

    run("pip", "install", "onnxruntime-gpu")  # which the page advises against
    assert runtimes(tmp_path) == {"onnxruntime", "onnxruntime_gpu"}
    assert run("python", "-c", CONFLICT) == (
        "onnxruntime 99 and onnxruntime-gpu 98 are installed and overwrite each other: "
        "'pip uninstall -y onnxruntime onnxruntime-gpu', then install only onnxruntime-gpu for 'cuda'\n"
    )

    run("pip", "uninstall", "-y", "onnxruntime")  # takes files of the other with it
    assert run("python", "-c", IMPORT) == (
        "the installed onnxruntime is not complete: 'pip install --force-reinstall --no-deps onnxruntime-gpu'\n"
    )
