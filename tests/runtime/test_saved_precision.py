import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import mlic_runtime
from mlic_runtime.base.machine import processor_name
from mlic_runtime.base.user_folders import config_folder
from mlic_runtime.errors import ChoiceError
from mlic_runtime.graph import saved_precision as module
from mlic_runtime.graph.saved_precision import (
    PrecisionChoice,
    ProviderChoice,
    find_saved_precision,
    find_saved_provider,
    graphs_digest,
    save_choices,
    save_precision,
    saved_precisions_path,
)
from mlic_runtime.package.manifest import Manifest
from mlic_runtime.package.model_package import load_package

Edit = Callable[[dict[str, Any]], object]

ADVICE = ": remove it, or run mlic-bench --choose again"


@pytest.fixture
def manifest(tiny: Path) -> Manifest:
    return load_package(tiny).manifest


@pytest.fixture
def choice(manifest: Manifest) -> PrecisionChoice:
    times = {"fp32": 2.0, "fp16": 1.5}
    return PrecisionChoice("tiny@1.0.0", graphs_digest(manifest), "cpu", processor_name(), "fp16", times)


# --- round trips


def test_without_a_file_nothing_is_chosen(manifest: Manifest, settings: Path) -> None:
    assert find_saved_precision(manifest, "cpu") is None
    assert not settings.parent.exists(), "reading makes no folder"


def test_a_choice_is_found_again(manifest: Manifest, choice: PrecisionChoice, settings: Path) -> None:
    assert save_precision(choice) == (settings, None)
    assert saved_precisions_path() == settings
    assert find_saved_precision(manifest, "cpu") == "fp16"
    assert json.loads(settings.read_text("utf-8")) == {
        "schema_version": 2,
        "choices": [
            {
                "model": "tiny@1.0.0",
                "graphs": graphs_digest(manifest),
                "provider": "cpu",
                "processor": processor_name(),
                "precision": "fp16",
                "p50_ms": {"fp32": 2.0, "fp16": 1.5},
            }
        ],
        "providers": [],
    }
    assert [path.name for path in settings.parent.iterdir()] == ["precision.json"]


def test_a_choice_is_for_one_provider_one_machine_and_these_graphs(
    manifest: Manifest, choice: PrecisionChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_precision(choice)
    assert find_saved_precision(manifest, "cuda") is None
    files = {name: dataclasses.replace(spec, sha256="0" * 64) for name, spec in manifest.files.items()}
    assert find_saved_precision(dataclasses.replace(manifest, files=files), "cpu") is None
    monkeypatch.setattr(module, "processor_name", lambda: "another processor")
    assert find_saved_precision(manifest, "cpu") is None


def test_what_is_no_graph_does_not_matter(manifest: Manifest, choice: PrecisionChoice) -> None:
    """A corrected model card or threshold takes nobody's time."""
    save_precision(choice)
    card = dataclasses.replace(manifest.files["README.md"], sha256="0" * 64)
    corrected = dataclasses.replace(manifest, version="1.0.1", files={**manifest.files, "README.md": card})
    assert find_saved_precision(corrected, "cpu") == "fp16"
    reordered = dataclasses.replace(manifest, files=dict(sorted(manifest.files.items())))
    assert list(reordered.files) != list(manifest.files)
    assert graphs_digest(reordered) == graphs_digest(manifest)


def test_a_choice_takes_the_place_of_the_older_one_and_leaves_the_others(
    manifest: Manifest, choice: PrecisionChoice, settings: Path
) -> None:
    others = [
        dataclasses.replace(choice, provider="cuda"),
        dataclasses.replace(choice, processor="another processor"),
        dataclasses.replace(choice, graphs="0" * 64),
    ]
    for each in (others[0], choice, *others[1:]):
        save_precision(each)
    save_precision(dataclasses.replace(choice, precision="fp32"))
    assert find_saved_precision(manifest, "cpu") == "fp32"
    assert find_saved_precision(manifest, "cuda") == "fp16"
    assert len(json.loads(settings.read_text("utf-8"))["choices"]) == 4


def test_a_provider_is_found_again_and_replaced(manifest: Manifest, choice: PrecisionChoice) -> None:
    first = ProviderChoice("tiny@1.0.0", graphs_digest(manifest), processor_name(), "cuda", {"cuda": 1.0, "cpu": 2.0})
    other = dataclasses.replace(first, processor="another processor")
    save_choices([choice], [first, other])
    assert (find_saved_provider(manifest), find_saved_precision(manifest, "cpu")) == ("cuda", "fp16")
    save_choices([], [dataclasses.replace(first, provider="cpu")])
    assert (find_saved_provider(manifest), find_saved_precision(manifest, "cpu")) == ("cpu", "fp16")


def test_a_file_of_the_first_schema_is_read_and_kept(
    manifest: Manifest, choice: PrecisionChoice, settings: Path
) -> None:
    settings.parent.mkdir(parents=True)
    settings.write_bytes(json.dumps({"schema_version": 1, "choices": [dataclasses.asdict(choice)]}).encode())
    assert (find_saved_precision(manifest, "cpu"), find_saved_provider(manifest)) == ("fp16", None)
    save_precision(dataclasses.replace(choice, provider="cuda"))
    assert find_saved_precision(manifest, "cpu") == "fp16"
    assert json.loads(settings.read_text("utf-8"))["schema_version"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provider": "cuda"}, r"file.providers\[0\].provider must be measured \(cpu\), found 'cuda'"),
        ({"p50_ms": {"cpu": 0.0}}, "p50_ms.cpu must be more than 0"),
        ({"p50_ms": {"gpu": 1.0}}, "a provider in file.providers.*found 'gpu'"),
        ({"graphs": "abc"}, "graphs must be a SHA-256 digest"),
    ],
)
def test_a_provider_that_breaks_a_rule_is_refused_by_name(
    manifest: Manifest, choice: PrecisionChoice, change: dict[str, Any], message: str
) -> None:
    good = ProviderChoice("tiny", graphs_digest(manifest), processor_name(), "cpu", {"cpu": 1.0})
    save_choices([choice], [dataclasses.replace(good, **change)])
    with pytest.raises(ChoiceError, match=message):
        find_saved_provider(manifest)


# --- files that are not ours


def corrupt(choice: PrecisionChoice, change: Edit) -> bytes:
    save_precision(choice)
    data = json.loads(saved_precisions_path().read_text("utf-8"))
    change(data)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=3), "has schema_version 3, this mlic-runtime reads 1 and 2"),
        (lambda d: d.update(schema_version=True), "has schema_version True"),
        (lambda d: d.pop("schema_version"), "has schema_version None"),
        (lambda d: d.update(schema_version=1.0), "file.schema_version must be int"),
        (lambda d: d.update(surprise=1), "unknown key file.surprise"),
        (lambda d: d.update(choices={}), "file.choices must be a list"),
        (lambda d: d["choices"].append(3), r"file.choices\[1\] must be an object, found 3"),
        (lambda d: d["choices"].append(d["choices"][0]), "file.choices must be one for each package, provider and"),
        (lambda d: d["choices"][0].update(threads=2), r"unknown key file.choices\[0\].threads"),
        (lambda d: d["choices"][0].pop("graphs"), r"file.choices\[0\].graphs is missing"),
        (lambda d: d["choices"][0].update(graphs="abc"), r"graphs must be a SHA-256 digest, found 'abc'"),
        (lambda d: d["choices"][0].update(provider="gpu"), "provider must be one of cpu, .*found 'gpu'"),
        (lambda d: d["choices"][0].update(precision="fp8"), r"precision must be measured \(fp32, fp16\), found 'fp8'"),
        (lambda d: d["choices"][0].update(precision=None), "precision must be str"),
        (lambda d: d["choices"][0]["p50_ms"].update(fp8=1.0), "a precision in .*p50_ms must be one of .*found 'fp8'"),
        (lambda d: d["choices"][0]["p50_ms"].update(fp16=0), "p50_ms.fp16 must be more than 0"),
        (lambda d: d["choices"][0]["p50_ms"].update(fp16="1"), "p50_ms.fp16 must be float"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_by_name(
    manifest: Manifest, choice: PrecisionChoice, settings: Path, change: Edit, message: str
) -> None:
    settings.write_bytes(corrupt(choice, change))
    with pytest.raises(ChoiceError, match=message) as caught:
        find_saved_precision(manifest, "cpu")
    assert str(caught.value).startswith(repr(str(settings)))
    assert str(caught.value).endswith(ADVICE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[]", "must hold a JSON object, found list"),
        (b'{"schema_version": 1, "schema_version": 1}', "duplicate key 'schema_version'"),
        (b'{"schema_version": NaN}', "NaN is not a number"),
        (b" " * (1024 * 1024 + 1), "is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_file_of_ours_is_refused_until_a_choice_replaces_it(
    manifest: Manifest, choice: PrecisionChoice, settings: Path, content: bytes, message: str
) -> None:
    settings.parent.mkdir()
    settings.write_bytes(content)
    with pytest.raises(ChoiceError, match=message):
        find_saved_precision(manifest, "cpu")
    path, broken = save_precision(choice)
    assert path == settings
    assert broken is not None
    assert message in broken
    assert find_saved_precision(manifest, "cpu") == "fp16"
    assert len(json.loads(settings.read_text("utf-8"))["choices"]) == 1


def test_only_a_regular_file_is_read(manifest: Manifest, choice: PrecisionChoice, settings: Path) -> None:
    settings.parent.mkdir()
    os.mkfifo(settings)
    with pytest.raises(ChoiceError, match="cannot be read: it is not a regular file" + ADVICE):
        find_saved_precision(manifest, "cpu")
    assert save_precision(choice).broken == "cannot be read: it is not a regular file"
    assert find_saved_precision(manifest, "cpu") == "fp16"
    settings.unlink()
    settings.mkdir()
    with pytest.raises(ChoiceError, match="cannot be read: it is a directory"):
        find_saved_precision(manifest, "cpu")
    with pytest.raises(ChoiceError, match=r"cannot write .*precision\.json'"):
        save_precision(choice)
    assert [path.name for path in settings.parent.iterdir()] == ["precision.json"], "no temporary file is left"


def test_a_precision_that_the_package_does_not_have_is_refused(manifest: Manifest, choice: PrecisionChoice) -> None:
    save_precision(dataclasses.replace(choice, precision="int8", p50_ms={"int8": 1.0}))
    with pytest.raises(ChoiceError, match="has the precision int8 for tiny@1.0.0, which has no such graph" + ADVICE):
        find_saved_precision(manifest, "cpu")


# --- folders


def test_a_failed_write_leaves_the_older_file(
    manifest: Manifest, choice: PrecisionChoice, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_precision(choice)

    def give_up(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", give_up)
    with pytest.raises(ChoiceError, match=r"cannot write .*: No space left on device"):
        save_precision(dataclasses.replace(choice, precision="fp32"))
    assert find_saved_precision(manifest, "cpu") == "fp16"
    assert [path.name for path in settings.parent.iterdir()] == ["precision.json"]


def test_a_home_that_is_no_folder_holds_no_choice(
    manifest: Manifest, choice: PrecisionChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of many a service: /dev/null, /nonexistent."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert find_saved_precision(manifest, "cpu") is None
    with pytest.raises(ChoiceError, match="cannot write "):
        save_precision(choice)


def test_a_folder_that_may_not_be_entered_holds_no_choice(
    manifest: Manifest, choice: PrecisionChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root's, for a service that root started and that then became another user."""
    save_precision(choice)

    def refuse(self: Path, **options: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert find_saved_precision(manifest, "cpu") is None


def test_a_file_that_may_not_be_read_is_refused(
    manifest: Manifest, choice: PrecisionChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_precision(choice)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "open_regular", refuse)
    with pytest.raises(ChoiceError, match="cannot be read: Permission denied" + ADVICE):
        find_saved_precision(manifest, "cpu")


def test_the_working_folder_is_no_home(
    manifest: Manifest, choice: PrecisionChoice, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_precision(choice)
    monkeypatch.chdir(settings.parents[1])
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert saved_precisions_path() == Path("mlic/precision.json")
    assert find_saved_precision(manifest, "cpu") is None
    with pytest.raises(ChoiceError, match="no home folder is known; set XDG_CONFIG_HOME to a folder"):
        save_precision(choice)


def test_the_module_loads_nothing_heavy() -> None:
    heavy = ("numpy", "PIL", "onnxruntime", "tokenizers")
    code = f"import sys, mlic_runtime.graph.saved_precision; print([name for name in {heavy} if name in sys.modules])"
    path = os.pathsep.join(filter(None, [str(Path(mlic_runtime.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("variable", ["HOME", "APPDATA", "XDG_CONFIG_HOME"])
def test_the_folder_is_that_of_click(
    system: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("click.utils.WIN", system == "win32")
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert str(config_folder()) == click.get_app_dir("mlic")
