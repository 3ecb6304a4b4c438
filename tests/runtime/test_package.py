import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime import Predictor
from mlic_runtime.errors import IntegrityError, ManifestError, ModelNotFoundError, PackageError
from mlic_runtime.package import model_package as package_module
from mlic_runtime.package.model_package import bundled_models, find_package, load_package

FILES = ("model.fp32.onnx", "model.fp16.onnx", "tokenizer.json", "README.md")

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that bundles the model "hybrid" and a folder without a manifest; no other model is installed."""
    models = tmp_path / "installed" / "models"
    shutil.copytree(tiny, models / "hybrid")
    (models / "unfinished").mkdir()
    monkeypatch.setattr(package_module, "_RUNTIME", models.parent)
    monkeypatch.setattr(package_module, "installed_models", dict)
    return models


def test_a_package_gives_its_files(tiny: Path) -> None:
    package = load_package(tiny)
    package.verify()
    assert package.path == tiny
    assert package.manifest.name == "tiny"
    assert package.read("README.md") == (tiny / "README.md").read_bytes()
    assert package.read_graph("fp16") == (tiny / "model.fp16.onnx").read_bytes()


def test_a_package_can_be_taken_with_one_of_its_graphs(tiny: Path) -> None:
    alone = load_package(tiny).with_graph("fp16")
    assert alone.manifest.precisions == ("fp16",)
    assert list(alone.manifest.files) == ["model.fp16.onnx", "tokenizer.json", "README.md"]
    assert alone.manifest.labels == load_package(tiny).manifest.labels
    predictor = Predictor.load(alone)
    assert predictor.precision == "fp16"
    assert predictor.predict(caption="red") == Predictor.load(tiny, precision="fp16").predict(caption="red")
    with pytest.raises(ManifestError, match="has no int8 graph; it has: fp32, fp16"):
        load_package(tiny).with_graph("int8")


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_is_noticed(tiny_copy: Path, name: str) -> None:
    data = bytearray((tiny_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tiny_copy / name).write_bytes(data)
    package = load_package(tiny_copy)
    with pytest.raises(IntegrityError, match=rf"{name} has sha256 \w+, expected"):
        package.read(name)
    with pytest.raises(IntegrityError, match=name):
        package.verify()


@pytest.mark.parametrize("name", FILES)
def test_another_size_is_noticed(tiny_copy: Path, name: str) -> None:
    with (tiny_copy / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(IntegrityError, match=rf"{name} has \d+ bytes, expected \d+"):
        load_package(tiny_copy).read(name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    with pytest.raises(IntegrityError, match=rf"{name}: there is no such file"):
        load_package(tiny_copy).verify()


def test_a_symbolic_link_in_the_package_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "model.fp32.onnx").rename(tiny_copy.parent / "elsewhere.onnx")
    (tiny_copy / "model.fp32.onnx").symlink_to(tiny_copy.parent / "elsewhere.onnx")
    with pytest.raises(IntegrityError, match=r"model\.fp32\.onnx: it is a symbolic link"):
        load_package(tiny_copy).read_graph("fp32")


def test_a_manifest_behind_a_symbolic_link_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "manifest.json").rename(tiny_copy.parent / "manifest.json")
    (tiny_copy / "manifest.json").symlink_to(tiny_copy.parent / "manifest.json")
    with pytest.raises(ManifestError, match=r"manifest\.json: it is a symbolic link"):
        load_package(tiny_copy)


def test_a_file_that_is_not_regular_is_refused_without_waiting(tiny_copy: Path) -> None:
    (tiny_copy / "README.md").unlink()
    os.mkfifo(tiny_copy / "README.md")
    with pytest.raises(IntegrityError, match=r"README\.md: it is not a regular file"):
        load_package(tiny_copy).verify()


@pytest.mark.parametrize("name", ["model.int8.onnx", "notes.txt", "weights.bin"])
def test_a_file_that_the_manifest_does_not_list_is_refused(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"holds '{name}', which manifest.json does not list"):
        load_package(tiny_copy).verify()


def test_a_name_that_is_not_listed_cannot_be_read(tiny: Path) -> None:
    with pytest.raises(IntegrityError, match=r"lists no file '\.\./tiny_picture/README.md'"):
        load_package(tiny).read("../tiny_picture/README.md")


def test_a_graph_that_is_not_onnx_is_refused(tiny_copy: Path, replace_file: Callable[[Path, str, bytes], None]) -> None:
    replace_file(tiny_copy, "model.fp32.onnx", b"not a graph")
    with pytest.raises(PackageError, match=r"model\.fp32\.onnx is not a valid ONNX file"):
        load_package(tiny_copy).verify()


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: there is no such file"):
        load_package(tmp_path)


def test_a_manifest_error_names_the_package(tiny_copy: Path, edit_manifest: Callable[[Path, Edit], None]) -> None:
    edit_manifest(tiny_copy, lambda data: data.update(schema_version=2))
    with pytest.raises(ManifestError, match=rf"{tiny_copy}: manifest.json has schema_version 2"):
        load_package(tiny_copy)


def test_a_huge_manifest_is_not_read(tiny_copy: Path) -> None:
    with (tiny_copy / "manifest.json").open("ab") as stream:
        stream.truncate(5 * 1024 * 1024)
    with pytest.raises(ManifestError, match="larger than"):
        load_package(tiny_copy)


def test_the_argument_comes_before_the_variable_and_the_bundled_model(
    bundle: Path, tiny: Path, tiny_picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_package() == bundle / "hybrid"
    monkeypatch.setenv("MLIC_MODEL", "")
    assert find_package() == bundle / "hybrid"
    monkeypatch.setenv("MLIC_MODEL", str(tiny))
    assert find_package() == tiny
    assert find_package(tiny_picture) == tiny_picture
    assert find_package(str(tiny_picture)) == tiny_picture
    assert find_package("hybrid") == bundle / "hybrid"


def test_a_text_that_names_an_existing_folder_is_that_folder(
    bundle: Path, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_copy.parent)
    assert find_package("tiny") == Path("tiny")


@pytest.mark.parametrize("value", ["unknown", "./hybrid", "a/b", Path("hybrid")])
def test_an_unknown_model_lists_those_that_are_there(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: "str | Path"
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"there is no folder.*; available models: hybrid$"):
        find_package(value)


def test_an_unknown_model_in_the_variable_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", "unknown")
    with pytest.raises(ModelNotFoundError, match=r"'unknown' \(from \$MLIC_MODEL\)"):
        find_package()


def test_without_a_bundled_model_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_module, "_RUNTIME", tmp_path)
    monkeypatch.setattr(package_module, "installed_models", dict)
    with pytest.raises(ModelNotFoundError, match=r"give a model package, .* \$MLIC_MODEL; available models: none"):
        find_package()


def test_any_other_file_is_not_a_model_package(tiny: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is not a folder or a \.mlic file; a model package is one"):
        find_package(tiny / "manifest.json")


def test_what_makes_a_folder_importable_is_no_additional_file(tiny_copy: Path) -> None:
    (tiny_copy / "__init__.py").touch()
    (tiny_copy / "__pycache__").mkdir()
    load_package(tiny_copy).verify()


def test_a_file_is_reported_once_it_is_verified(tiny_copy: Path) -> None:
    (tiny_copy / "tokenizer.json").unlink()
    reported = load_package(tiny_copy).verified()
    assert [next(reported)[0], next(reported)[0]] == ["model.fp32.onnx", "model.fp16.onnx"]
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        next(reported)


def test_only_folders_with_a_manifest_are_bundled_models(bundle: Path) -> None:
    assert bundled_models() == {"hybrid": bundle / "hybrid"}


def test_a_checkout_bundles_what_it_exports_and_an_installation_does_not(bundle: Path, tiny_picture: Path) -> None:
    exported = bundle.parents[1] / "exported" / "picture"
    shutil.copytree(tiny_picture, exported)
    assert list(bundled_models()) == ["hybrid"]
    (bundle.parent / "pyproject.toml").touch()
    assert bundled_models() == {"hybrid": bundle / "hybrid", "picture": exported}
