import csv
import importlib
import importlib.machinery
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlic_runtime
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import ModelNotFoundError, PackageError
from mlic_runtime.package import model_package as package_module
from mlic_runtime.package.catalog import ListedModel, list_models
from mlic_runtime.package.installed import installed_models
from mlic_runtime.package.model_package import find_package, load_package

Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, for distributions; nothing is bundled."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(package_module, "_RUNTIME", tmp_path / "no-bundle")
    return folder


@pytest.fixture
def install(site: Path, tiny: Path) -> Install:
    """What pip would do with a distribution that offers the model `name`; its package must not be imported."""

    def do(
        name: str, distribution: str, *, module: str | None = None, version: str = "1.0", source: Path = tiny
    ) -> Path:
        module = distribution.replace("-", "_") if module is None else module
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[mlic_runtime.models]\n{name} = {module}\n")
        folder = site.joinpath(*module.split("."))
        shutil.copytree(source, folder)
        while folder != site:
            (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
            folder = folder.parent
        return site.joinpath(*module.split("."))

    return do


def listed() -> dict[str, ListedModel]:
    """Those of this test, in an environment that may have models of its own."""
    return {model.source: model for model in list_models()}


def test_an_installed_model_is_found_by_name_and_not_imported(install: Install) -> None:
    folder = install("small", "acme-small")
    assert find_package("small") == folder
    load_package("small").verify()
    assert "acme_small" not in sys.modules


def test_a_package_in_a_package_is_found_without_importing_either(install: Install) -> None:
    folder = install("small", "acme-models", module="acme.models.small")
    assert find_package("small") == folder
    assert "acme" not in sys.modules


def test_a_package_without_init_is_found_too(install: Install) -> None:
    folder = install("small", "acme-small", module="acme.small")
    (folder / "__init__.py").unlink()
    (folder.parent / "__init__.py").unlink()
    assert find_package("small") == folder


def test_the_variable_may_name_it(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install("small", "acme-small")
    monkeypatch.setenv("MLIC_MODEL", "small")
    assert find_package() == folder
    assert [model.source for model in list_models() if model.name == "small"] == ["acme-small 1.0"]


def test_an_unknown_name_lists_the_installed_models(install: Install) -> None:
    install("small", "acme-small")
    with pytest.raises(ModelNotFoundError, match=r"named 'unknown'; available models: (\S+, )*small\b"):
        find_package("unknown")


def test_an_installed_model_comes_before_the_bundled_one_of_its_name(
    install: Install, tiny: Path, tiny_picture: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "no-bundle" / "models" / "hybrid")
    assert find_package() == tmp_path / "no-bundle" / "models" / "hybrid"
    folder = install("hybrid", "mlic-model-hybrid", source=tiny_picture)
    assert find_package() == folder
    assert find_package("hybrid") == folder
    assert [model.source for model in list_models() if model.name == "hybrid"] == ["mlic-model-hybrid 1.0"]


def test_a_name_that_two_distributions_offer_is_an_error(install: Install) -> None:
    install("small", "other-small", version="2.0")
    install("small", "acme-small")
    message = r"model 'small' is offered by acme-small 1\.0 and other-small 2\.0: uninstall all but one"
    with pytest.raises(PackageError, match=message):
        find_package("small")
    for source in ("acme-small 1.0", "other-small 2.0"):
        assert (listed()[source].error or "").startswith("model 'small' is offered by")


@pytest.mark.parametrize("module", ["not_there", "not_there.below", "../acme_small", "acme_small:attribute", "a b"])
def test_an_entry_point_that_leads_nowhere_is_an_error(site: Path, install: Install, module: str) -> None:
    install("small", "acme-small")
    (site / "acme_small-1.0.dist-info" / "entry_points.txt").write_text(f"[mlic_runtime.models]\nsmall = {module}\n")
    with pytest.raises(PackageError, match=r"model 'small' of acme-small 1\.0 should be in the package .* install it"):
        find_package("small")


def test_a_package_without_a_manifest_is_an_error(install: Install) -> None:
    folder = install("small", "acme-small")
    (folder / "manifest.json").unlink()
    with pytest.raises(PackageError, match=rf"has no manifest\.json in {folder}: install it again"):
        find_package("small")


# --- the list


def test_the_list_says_what_there_is(install: Install, tiny: Path, tmp_path: Path) -> None:
    install("small", "acme-small")
    shutil.copytree(tiny, tmp_path / "no-bundle" / "models" / "inside")
    size = sum(path.stat().st_size for path in tiny.iterdir())
    site = tmp_path / "site"
    assert listed()["acme-small 1.0"] == ListedModel(
        "small", "acme-small 1.0", "1.0.0", ("fp32", "fp16"), size, str(site / "acme_small"), None
    )
    inside = str(tmp_path / "no-bundle" / "models" / "inside")
    assert listed()["bundled"] == ListedModel("inside", "bundled", "1.0.0", ("fp32", "fp16"), size, inside, None)


def test_what_is_broken_does_not_hide_the_rest(install: Install) -> None:
    (install("first", "acme-first") / "manifest.json").write_text("{")
    (install("second", "acme-second") / "manifest.json").unlink()
    install("third", "acme-third")
    first, second, third = (listed()[f"acme-{name} 1.0"] for name in ("first", "second", "third"))
    assert "manifest.json is not valid JSON" in (first.error or "")
    assert "has no manifest.json" in (second.error or "")
    assert (first.version, first.bytes, third.version, third.error) == (None, None, "1.0.0", None)


def test_the_list_begins_with_the_path_that_the_variable_names(
    install: Install, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("small", "acme-small")
    monkeypatch.setenv("MLIC_MODEL", str(tiny))
    assert list_models()[0].to_dict() == {
        "name": str(tiny),
        "source": "$MLIC_MODEL",
        "version": "1.0.0",
        "precisions": ["fp32", "fp16"],
        "bytes": sum(path.stat().st_size for path in tiny.iterdir()),
        "path": str(tiny),
        "error": None,
    }
    monkeypatch.setenv("MLIC_MODEL", "unknown")
    assert "'unknown' (from $MLIC_MODEL)" in (list_models()[0].error or "")
    monkeypatch.chdir(tmp_path / "site")
    (tmp_path / "site" / "acme_small").rename(tmp_path / "site" / "small")
    monkeypatch.setenv("MLIC_MODEL", "small")
    assert [model.source for model in list_models() if model.name == "small"] == ["$MLIC_MODEL", "acme-small 1.0"]


def test_the_table_shows_where_a_model_comes_from_and_what_is_wrong_with_it(install: Install) -> None:
    folder = install("small", "acme-small")
    install("broken\x1b", "acme-broken")
    (folder.parent / "acme_broken" / "manifest.json").unlink()
    result = CliRunner().invoke(infer, ["--list-models"])
    assert (result.exit_code, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["name", "version", "precisions", "bytes", "from", "path"]
    rows = {line.split()[0]: line for line in lines}
    assert rows["small"].split()[1:] == ["1.0.0", "fp32,fp16", "3434", "acme-small", "1.0", str(folder)]
    assert "acme-broken 1.0" in rows["broken\\x1b"]
    assert "cannot be used: model 'broken\\x1b' of acme-broken 1.0 has no manifest.json" in rows["broken\\x1b"]
    assert len({line.index(word) for line, word in ((header, "from"), (rows["small"], "acme-small"))}) == 1


def test_the_list_has_formats_for_programs(install: Install) -> None:
    folder = install("small", "acme-small")
    expected = listed()["acme-small 1.0"].to_dict()
    text = {
        name: CliRunner().invoke(infer, ["--list-models", "--format", name]).stdout for name in ("json", "jsonl", "csv")
    }
    assert expected in json.loads(text["json"])["models"]
    assert expected in [json.loads(line) for line in text["jsonl"].splitlines()]
    rows = list(csv.DictReader(io.StringIO(text["csv"], newline="")))
    assert {
        "name": "small",
        "source": "acme-small 1.0",
        "version": "1.0.0",
        "precisions": "fp32;fp16",
        "bytes": "3434",
        "path": str(folder),
        "error": "",
    } in rows


def test_verify_takes_a_name(install: Install) -> None:
    folder = install("small", "acme-small")
    assert CliRunner().invoke(infer, ["--verify", "small"]).stdout.endswith("\nok\n")
    (folder / "surprise.py").touch()
    result = CliRunner().invoke(infer, ["--verify", "small"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds 'surprise.py', which manifest.json does not list" in result.stderr


def test_another_process_finds_it_and_loads_nothing_heavy(install: Install, site: Path, tmp_path: Path) -> None:
    install("small", "acme-small")
    code = (
        "import atexit, sys; from mlic_runtime.cli.infer import infer; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); infer()"
    )
    here = str(Path(mlic_runtime.__file__).parents[1])
    path = os.pathsep.join(filter(None, [str(site), here, os.environ.get("PYTHONPATH")]))
    for arguments in (["--list-models"], ["--verify", "small"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path,
            check=True,
        )
        assert "fp32" in result.stdout
        assert not {"numpy", "PIL", "onnxruntime", "tokenizers", "torch", "acme_small"} & set(result.stderr.split())


# --- the look that saves a search


@pytest.fixture
def only_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Python's path is one folder, with one distribution that offers no model."""
    (site / "other-1.0.dist-info").mkdir()
    (site / "other-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nother = other:main\n")
    (site / "bare-1.0.dist-info").mkdir()
    (site / "debian-1.0.egg-info").write_text("Name: debian\n")
    monkeypatch.setattr(sys, "path", [str(site), str(site / "missing")])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    return site


def test_importlib_metadata_is_not_asked_where_nobody_offers_a_model(
    only_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("was asked"))
    assert installed_models() == {}


@pytest.mark.parametrize("where", ["small-1.0.dist-info", "small.egg-info", "small.egg/EGG-INFO", "small.zip"])
def test_whatever_importlib_metadata_finds_is_found(where: str, only_site: Path) -> None:
    about, offer = "Name: small\nVersion: 1\n", "[mlic_runtime.models]\nsmall = small\n"
    files = {"METADATA": about, "PKG-INFO": about, "entry_points.txt": offer}
    if where.endswith(".zip"):
        with zipfile.ZipFile(only_site / where, "w") as archive:
            for name, text in files.items():
                archive.writestr(f"small-1.dist-info/{name}", text)
        sys.path.append(str(only_site / where))
    else:
        (only_site / where).mkdir(parents=True)
        for name, text in files.items():
            (only_site / where / name).write_text(text)
        if "/" in where:
            sys.path.append(str(only_site / "small.egg"))
    importlib.invalidate_caches()
    assert list(installed_models()) == ["small"]


def test_a_finder_of_its_own_is_asked(only_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder(importlib.metadata.DistributionFinder):
        def find_distributions(self, context: object = None) -> list[importlib.metadata.Distribution]:
            asked.append(context)
            return []

    asked: list[object] = []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert installed_models() == {}
    assert asked
