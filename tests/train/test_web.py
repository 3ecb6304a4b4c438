"""`mlic-export --layout web`, with small archives in the place of npm's."""

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_runtime.package.manifest import parse_manifest
from mlic_runtime.package.model_package import load_package
from mlic_train.cli.export import export
from mlic_train.errors import ExportError
from mlic_train.exporting import web
from mlic_train.exporting.web import LIBRARIES, Library, export_site

ROOT = Path(__file__).parents[2]


def archive_of(library: Library) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in library.files:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return gzip.compress(stream.getvalue(), mtime=0)  # else the bytes would differ from one second to the next


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with archives whose digests the export expects; no network."""
    folder = tmp_path / "archives"
    folder.mkdir()
    libraries = []
    for library in LIBRARIES:
        content = archive_of(library)
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        libraries.append(dataclasses.replace(library, sha512=digest))
        (folder / f"{library.name.lstrip('@').replace('/', '-')}-{library.version}.tgz").write_bytes(content)
    monkeypatch.setattr(web, "LIBRARIES", tuple(libraries))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    return folder


def test_a_site_has_the_page_the_libraries_and_one_graph(archives: Path, tmp_path: Path) -> None:
    package, site = load_package(), tmp_path / "site"
    manifest = export_site(package, site, archives=archives)
    assert manifest.precisions == ("int8",)
    assert parse_manifest((site / "model" / "manifest.json").read_bytes()) == manifest
    load_package(site / "model").verify()
    sources = {path.name for path in (ROOT / "web").iterdir() if path.suffix in (".js", ".html", ".css")}
    assert {path.name for path in site.iterdir() if path.is_file()} == sources
    wanted = {name.rpartition("/")[2] for library in LIBRARIES for name in library.files}
    assert {path.name for path in (site / "vendor").iterdir()} == wanted
    examples = json.loads((site / "examples" / "examples.json").read_text())
    assert all((site / "examples" / each["file"]).is_file() for each in examples)
    assert len(examples) == 3


def test_what_the_page_loads_is_there(archives: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    export_site(load_package(), site, archives=archives)
    for script in site.glob("*.js"):
        for name in re.findall(r'from "(\./[^"]+)"', script.read_text()):
            assert (site / name).is_file(), f"{script.name} imports {name}"
    page = (site / "index.html").read_text()
    assert "'unsafe-inline'" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|style=|https?://", page)


def test_versions_of_the_npm_package_are_those_of_the_site() -> None:
    content = json.loads((ROOT / "web" / "package.json").read_text())
    assert content["peerDependencies"] == {library.name: library.version for library in LIBRARIES}
    files = [name for name in content["files"] if name.endswith(".js")]
    assert all((ROOT / "web" / name).is_file() for name in content["files"] if name != "README.md")
    imported = {name for file in files for name in re.findall(r'from "\./([^"]+)"', (ROOT / "web" / file).read_text())}
    assert imported <= set(files)


def test_an_earlier_site_is_replaced_and_nothing_else(archives: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    export_site(load_package(), site, archives=archives)
    (site / "old.txt").write_text("old")
    export_site(load_package(), site, archives=archives, precision="fp32")
    assert not (site / "old.txt").exists()
    assert not (site / "model" / "model.int8.onnx").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds something else than a site"):
        export_site(load_package(), other, archives=archives)
    with pytest.raises(ExportError, match="is a file"):
        export_site(load_package(), other / "letter.txt", archives=archives)
    assert (other / "letter.txt").read_text() == "mine"


def test_libraries_that_are_not_the_chosen_ones_are_refused(archives: Path, tmp_path: Path) -> None:
    file = next(archives.glob("onnxruntime*"))
    content = file.read_bytes()
    file.write_bytes(content + b"\0")
    with pytest.raises(ExportError, match=r"is not onnxruntime-web 1.30.0: its SHA-512 is"):
        export_site(load_package(), tmp_path / "site", archives=archives)
    file.unlink()
    with pytest.raises(ExportError, match=r"npm pack onnxruntime-web@1.30.0 writes it"):
        export_site(load_package(), tmp_path / "site", archives=archives)
    assert not (tmp_path / "site").exists()


def test_without_a_network_one_line_says_what_to_do(archives: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        export, ["--layout", "web", "--runs", str(tmp_path), "--output", str(tmp_path / "site")]
    )
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines()[-1].startswith("Error: cannot fetch onnxruntime-web 1.30.0")
    assert "give its folder with --npm-archives" in result.stderr


def test_libraries_are_kept_in_the_cache_and_checked_there(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(library: Library) -> bytes:
        fetched.append(library.name)
        return archive_of(library)

    monkeypatch.setattr(web, "_fetch", fetch)
    for _ in range(2):
        export_site(load_package(), tmp_path / "site")
    assert fetched == [library.name for library in LIBRARIES]
    kept = next((tmp_path / "cache").rglob("onnxruntime-web-*.tgz"))
    kept.write_bytes(b"damaged")
    lines: list[str] = []
    export_site(load_package(), tmp_path / "site", log=lines.append)
    assert fetched[2:] == ["onnxruntime-web"]
    assert any("is damaged and is fetched again" in line for line in lines)


def test_the_command_makes_a_site_of_the_released_model(archives: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    arguments = ["--layout", "web", "--runs", str(tmp_path), "--npm-archives", str(archives), "--output", str(site)]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"python -m http.server --bind 127.0.0.1 --directory {site}\n"
    assert (site / "model" / "model.int8.onnx").is_file()


def test_the_command_makes_a_site_of_a_run(archives: Path, tmp_path: Path) -> None:
    site, run = tmp_path / "site", ROOT / "mlic_train" / "released" / "hybrid"
    arguments = ["--layout", "web", "--run", str(run), "--npm-archives", str(archives), "--output", str(site)]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 0, result.output
    assert "with --data it would be int8" in result.stderr
    manifest = load_package(site / "model").manifest
    assert manifest.precisions == ("fp32",)
    assert manifest.evidence is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--npm-archives", "."], "--npm-archives belongs to --layout web"),
        (["--package", "hybrid"], "--package belongs to --layout web"),
        (["--layout", "web", "--package", "hybrid", "--run", "."], "give --package or --run, not both"),
        (["--layout", "web", "--precision", "fp32,int8"], "a site has one graph"),
        (["--layout", "web", "--single-file"], "leave --layout web out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
