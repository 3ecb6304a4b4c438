import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlic_runtime

SOURCE = Path(__file__).parents[2] / "mlic_runtime"
HEAVY = ("numpy", "PIL", "onnxruntime", "tokenizers", "torch")
# What a device has installed: the dependencies in mlic_runtime/pyproject.toml. Only the commands import click.
ALLOWED = {"numpy", "onnxruntime", "PIL", "tokenizers"}
# Its optional dependencies, by the modules that may ask for them.
EXTRAS = {
    "annotations/formats/yaml_files.py": {"yaml"},
    "annotations/source/parquet.py": {"pyarrow"},
    "base/far_files.py": {"fsspec", "pyarrow"},
    "base/override.py": {"typing_extensions"},  # for type checkers only
    "picture/heif.py": {"pillow_heif"},
    "providers/openvino.py": {"openvino"},
    "ray/engine.py": {"ray"},
    "ray/folder.py": {"pyarrow"},
    "ray/parts.py": {"pyarrow"},
    "ray/predictor.py": {"ray"},
    "ray/results.py": {"pyarrow"},
    "tables/table.py": {"pyarrow"},
    "serve/answers.py": {"starlette"},
    "serve/application.py": {"starlette"},
    "serve/metrics.py": {"prometheus_client"},
    "serve/page.py": {"starlette"},
    "serve/requests.py": {"python_multipart", "starlette"},
    "serve/server.py": {"h11", "uvicorn"},
}


def imports_of(path: Path) -> set[str]:
    """The top-level names of all absolute imports in a file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert mlic_runtime.__all__ == sorted(mlic_runtime.__all__)
    for name in mlic_runtime.__all__:
        assert getattr(mlic_runtime, name) is not None
        assert name in dir(mlic_runtime)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mlic_runtime' has no attribute 'Surprise'"):
        _ = mlic_runtime.Surprise


def test_the_version_is_that_of_the_distribution() -> None:
    found = re.search(r'^version = "(.+)"$', (SOURCE / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    assert mlic_runtime.__version__ == found[1]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, mlic_runtime; print([name for name in {HEAVY} if name in sys.modules])"
    path = os.pathsep.join(filter(None, [str(Path(mlic_runtime.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert result.stdout == "[]\n"


def test_the_runtime_imports_only_what_a_device_has() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 10
    for path in files:
        name = path.relative_to(SOURCE).as_posix()
        allowed = ALLOWED | EXTRAS.get(name, set()) | ({"click"} if name.startswith("cli/") else set())
        assert imports_of(path) <= allowed | {"mlic_runtime"} | sys.stdlib_module_names, name


def test_workers_load_no_command() -> None:
    code = (
        "import sys, mlic_runtime.batch.local, mlic_runtime.ray.parts; "
        "print([name for name in sys.modules if name == 'click' or name.startswith('mlic_runtime.cli')])"
    )
    path = os.pathsep.join(filter(None, [str(SOURCE.parent), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert result.stdout == "[]\n"
