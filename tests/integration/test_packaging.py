"""The wheel of the runtime, built from the checkout and used where the checkout is not."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlic_runtime.base.page_files import EXAMPLE_FOLDER, PAGE_FILES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    line = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(folder),
        str(wheel),
    ]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def isolated(site: Path, code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code that finds mlic_runtime in the installed wheel first, never in the checkout."""
    prelude = f"import sys; sys.path.insert(0, {str(site)!r}); "
    line = [sys.executable, "-c", prelude + code, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_wheel_holds_the_package_and_the_released_model_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mlic_runtime").rglob("*.py")}
    model = {f"mlic_runtime/models/hybrid/{path.name}" for path in (ROOT / "exported" / "hybrid").iterdir()}
    metadata = {name for name in names if ".dist-info/" in name}
    page = {f"mlic_runtime/{EXAMPLE_FOLDER}/{path.name}" for path in (ROOT / EXAMPLE_FOLDER).glob("*.[jp][pn]g")}
    page |= {f"mlic_runtime/web/{name}" for name in PAGE_FILES}
    assert names - metadata == modules | model | page | {"mlic_runtime/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_wheel_needs_the_five_named_libraries_only(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    always = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    needs = {line.split(":")[1].split(">")[0].strip() for line in always}
    assert needs == {"click", "numpy", "onnxruntime", "pillow", "tokenizers"}
    assert "Requires-Python: >=3.10" in lines


def test_the_wheel_is_imported_from_where_it_was_installed(site: Path, tmp_path: Path) -> None:
    done = isolated(site, "import mlic_runtime; print(mlic_runtime.__file__)", cwd=tmp_path)
    assert Path(done.stdout.strip()).is_relative_to(site)


@pytest.mark.parametrize(
    ("picture", "caption", "expected"),
    [
        ("cat.png", "a tabby looks into the camera", ["cat"]),
        ("astronaut.jpg", "a smiling astronaut in front of a flag", ["person"]),
        ("coffee.jpg", "a cup of coffee on a wooden table", []),
        ("cat.png", None, ["cat"]),
        ("astronaut.jpg", None, ["person"]),
    ],
)
def test_the_released_model_knows_the_examples(
    site: Path, tmp_path: Path, picture: str, caption: str | None, expected: list[str]
) -> None:
    arguments = [str(ROOT / "examples" / picture), *([caption] if caption else []), "--format", "json"]
    done = isolated(site, "from mlic_runtime.cli.infer import infer; infer()", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"] == expected


def test_the_installed_command_predicts_from_the_root_folder(site: Path) -> None:
    line = [sys.executable, str(site / "bin" / "mlic-infer"), str(ROOT / "examples" / "cat.png"), "--format", "json"]
    path = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd="/", env=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"] == ["cat"]


def test_versions_agree() -> None:
    """One version number: both distributions, both packages, and the pin between them."""
    import mlic_runtime
    import mlic_train

    train, runtime = ((ROOT / name).read_text() for name in ("pyproject.toml", "mlic_runtime/pyproject.toml"))
    version = mlic_runtime.__version__
    assert mlic_train.__version__ == version
    assert f'version = "{version}"' in train
    assert f'version = "{version}"' in runtime
    assert f'"mlic-runtime=={version}"' in train


def test_the_containerfile_copies_all_that_the_wheel_is_made_of() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().splitlines()
    copies = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert all(target == f"/source/{source}" for _, source, target in copies)
    copied = tuple(f"{source}/" for _, source, _ in copies)
    project = (ROOT / "mlic_runtime" / "pyproject.toml").read_text()
    included = re.findall(r'^"\.\./(.+?)" = ', project, re.MULTILINE)
    assert len(included) > len(PAGE_FILES)
    assert [name for name in included if not f"{name}/".startswith(copied)] == []
