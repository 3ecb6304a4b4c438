import base64
import configparser
import csv
import email
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.errors import IntegrityError
from mlic_runtime.package.model_package import load_package
from mlic_train.cli.export import export
from mlic_train.errors import ExportError
from mlic_train.exporting.archive import write_archive
from mlic_train.exporting.wheel import normalise_version, write_wheel
from mlic_train.runs.folder import TrainedModel

ROOT = Path(__file__).parents[2]
Edit = Callable[[str, str], None]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The tiny package (see tests/tiny_package.py), in a folder of its own."""
    return Path(shutil.copytree(ROOT / "tests" / "data" / "tiny", tmp_path / "tiny"))


@pytest.fixture
def edit(package: Path) -> Edit:
    """Change a text of the package's manifest."""

    def change(key: str, value: str) -> None:
        manifest = package / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))

    return change


def contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- one file


def test_a_single_file_holds_the_package_and_nothing_else(package: Path, tmp_path: Path) -> None:
    write_archive(package, tmp_path / "out" / "tiny.mlic")
    assert contents(tmp_path / "out" / "tiny.mlic") == {path.name: path.read_bytes() for path in package.iterdir()}
    load_package(tmp_path / "out" / "tiny.mlic").verify()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny.mlic"]
    assert (tmp_path / "out" / "tiny.mlic").stat().st_mode & 0o777 == 0o644


def test_a_single_file_of_a_single_file_is_the_same(package: Path, tmp_path: Path) -> None:
    write_archive(package, tmp_path / "a.mlic")
    write_archive(tmp_path / "a.mlic", tmp_path / "b.mlic")
    assert (tmp_path / "a.mlic").read_bytes() == (tmp_path / "b.mlic").read_bytes()


def test_a_single_file_is_stored_so_that_every_bit_of_it_counts(package: Path, tmp_path: Path) -> None:
    """tests/runtime/test_archive.py flips every byte of such a file; deflated data have bits without meaning."""
    write_archive(package, tmp_path / "tiny.mlic")
    members = zipfile.ZipFile(tmp_path / "tiny.mlic").infolist()
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}


def test_a_file_that_the_runtime_would_not_take_is_not_written(package: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"tiny\.zip does not end in \.mlic"):
        write_archive(package, tmp_path / "tiny.zip")
    assert not (tmp_path / "tiny.zip").exists()


# --- wheel


def test_a_wheel_has_the_files_that_installers_want(package: Path, tmp_path: Path) -> None:
    wheel = write_wheel(package, tmp_path / "dist")
    assert wheel == tmp_path / "dist" / "mlic_model_tiny-1.0.0-py3-none-any.whl"
    files = contents(wheel)
    model = {f"mlic_model_tiny/{path.name}": path.read_bytes() for path in package.iterdir()}
    assert {name: files[name] for name in model} == model
    info = "mlic_model_tiny-1.0.0.dist-info"
    assert list(files)[-4:] == [f"{info}/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "RECORD")]
    assert set(files) - set(model) - set(list(files)[-4:]) == {"mlic_model_tiny/__init__.py"}
    compile(files["mlic_model_tiny/__init__.py"], "__init__.py", "exec")

    metadata = email.message_from_bytes(files[f"{info}/METADATA"])
    assert (metadata["Metadata-Version"], metadata["Name"], metadata["Version"]) == ("2.1", "mlic-model-tiny", "1.0.0")
    assert metadata.get_all("Requires-Dist") == ["mlic-runtime"]
    assert metadata.get_payload() == (package / "README.md").read_text()
    tags = email.message_from_bytes(files[f"{info}/WHEEL"])
    assert (tags["Wheel-Version"], tags["Root-Is-Purelib"], tags["Tag"]) == ("1.0", "true", "py3-none-any")
    entry_points = configparser.ConfigParser(delimiters=("=",))
    entry_points.read_string(files[f"{info}/entry_points.txt"].decode())
    assert dict(entry_points["mlic_runtime.models"]) == {"tiny": "mlic_model_tiny"}


def test_the_record_has_every_file_with_its_hash_and_size(package: Path, tmp_path: Path) -> None:
    files = contents(write_wheel(package, tmp_path))
    *rows, last = csv.reader(io.StringIO(files["mlic_model_tiny-1.0.0.dist-info/RECORD"].decode()))
    assert last == ["mlic_model_tiny-1.0.0.dist-info/RECORD", "", ""]
    assert [row[0] for row in rows] + [last[0]] == list(files)
    for name, digest, size in rows:
        algorithm, _, encoded = digest.partition("=")
        assert algorithm == "sha256"
        assert base64.urlsafe_b64decode(encoded + "=") == hashlib.sha256(files[name]).digest()
        assert int(size) == len(files[name])


def test_an_installed_wheel_is_used_by_name_from_any_folder(package: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(write_wheel(package, tmp_path)).extractall(site)  # which is all that pip does with such a wheel
    (tmp_path / "elsewhere").mkdir()

    def infer(*arguments: str) -> "subprocess.CompletedProcess[str]":
        code = "from mlic_runtime.cli.infer import infer; infer()"
        path = os.pathsep.join(filter(None, [str(site), str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path / "elsewhere",
            check=True,
        )

    picture = str(ROOT / "examples" / "cat.png")
    assert json.loads(infer(picture, "red", "--model", "tiny", "--format", "json").stdout)["model"] == "tiny@1.0.0"
    assert "mlic-model-tiny 1.0.0" in infer("--list-models").stdout
    assert infer("--verify", "tiny").stdout.endswith("\nok\n")


@pytest.mark.parametrize(
    ("name", "version", "wheel", "module"),
    [
        ("My-Model..2", "1.0", "mlic_model_my_model_2-1.0-py3-none-any.whl", "mlic_model_my_model_2"),
        ("a_b", "v1.0-RC1", "mlic_model_a_b-1.0rc1-py3-none-any.whl", "mlic_model_a_b"),
        ("a", "2.0.post1.dev3", "mlic_model_a-2.0.post1.dev3-py3-none-any.whl", "mlic_model_a"),
    ],
)
def test_names_and_versions_are_written_as_installers_expect_them(
    package: Path, edit: Edit, tmp_path: Path, name: str, version: str, wheel: str, module: str
) -> None:
    edit("name", name)
    edit("version", version)
    written = write_wheel(package, tmp_path)
    assert written.name == wheel
    info = "-".join(wheel.split("-")[:2]) + ".dist-info"
    files = contents(written)
    assert f"{info}/RECORD" in files
    assert f"\n{name} = {module}\n" in files[f"{info}/entry_points.txt"].decode(), "the name itself stays as it is"
    assert f"{module}/manifest.json" in files


@pytest.mark.parametrize("version", ["latest", "1.0.0-best", "1..0", "2024_01"])
def test_a_version_that_is_none_by_pep_440_is_refused(package: Path, edit: Edit, tmp_path: Path, version: str) -> None:
    edit("version", version)
    with pytest.raises(ExportError, match=f"cannot have the version '{version}': give one by PEP 440, such as 1.0.0"):
        write_wheel(package, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_version_is_normalised() -> None:
    assert normalise_version("1.0-ALPHA.1") == "1.0a1"


def test_a_name_that_no_distribution_can_have_is_refused(package: Path, edit: Edit, tmp_path: Path) -> None:
    edit("name", "tiny-")
    with pytest.raises(ExportError, match="a model named 'tiny-': the name must end in a letter or a digit"):
        write_wheel(package, tmp_path)


# --- both


@pytest.mark.parametrize("write", [write_wheel, lambda package, output: write_archive(package, output / "tiny.mlic")])
def test_what_is_written_depends_on_the_content_only(
    package: Path, tmp_path: Path, write: Callable[[Path, Path], object]
) -> None:
    write(package, tmp_path / "first")
    again = tmp_path / "another" / "place"
    again.mkdir(parents=True)
    for path in sorted(package.iterdir(), reverse=True):
        shutil.copyfile(path, again / path.name)
        os.utime(again / path.name, (1, 1))
        (again / path.name).chmod(0o600)
    write(again, tmp_path / "second")
    first, second = (next((tmp_path / name).iterdir()) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    for info in zipfile.ZipFile(first).infolist():
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert info.external_attr >> 16 == stat.S_IFREG | 0o644


@pytest.mark.parametrize("write", [write_wheel, lambda package, output: write_archive(package, output / "tiny.mlic")])
def test_a_damaged_package_is_not_packed(package: Path, tmp_path: Path, write: Callable[[Path, Path], object]) -> None:
    (package / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json has 2 bytes, expected 394"):
        write(package, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- mlic-export


def test_export_writes_both_beside_the_package_and_prints_where(cnn: TrainedModel, tmp_path: Path) -> None:
    output = tmp_path / "packages" / "first"
    options = ["--model", "cnn", "--run", str(cnn.folder), "--output", str(output), "--package-version", "1.2-rc3"]
    result = CliRunner().invoke(export, [*options, "--single-file", "--wheel"])
    assert result.exit_code == 0, result.output
    wheel = output.parent / "mlic_model_cnn-1.2rc3-py3-none-any.whl"
    assert result.stdout.splitlines()[-2:] == [f"{output}.mlic", str(wheel)]
    assert sorted(path.name for path in output.parent.iterdir()) == ["first", "first.mlic", wheel.name]
    assert load_package(output.parent / "first.mlic").manifest == load_package(output).manifest
    load_package(output).verify()


def test_export_refuses_a_version_before_it_works(cnn: TrainedModel, tmp_path: Path) -> None:
    options = ["--model", "cnn", "--run", str(cnn.folder), "--output", str(tmp_path / "package")]
    result = CliRunner().invoke(export, [*options, "--wheel", "--package-version", "best"])
    assert result.exit_code == 1
    assert "Error: a wheel cannot have the version 'best'" in result.stderr
    assert not (tmp_path / "package").exists()
