"""Commands whose standard output is missing: their files are finished, and one line says what was not printed."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import mlic_train
from mlic_runtime.base.override import override
from mlic_train.cli.export import export
from mlic_train.cli.report import report
from mlic_train.cli.shards import shards
from mlic_train.cli.sign import main as sign
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train
from mlic_train.config import ModelConfig
from mlic_train.runs.folder import TrainedModel, load_trained

SMALL = ["--image-size", "16", "--epochs", "1", "--device", "cpu", "--preset", "none"]
CLOSED = "Error: cannot write the output: standard output is closed; "
Lost = Callable[..., list[str]]


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Lost:
    """Run a command without standard output, and return what it then says of that."""

    def run(command: click.Command, *arguments: object, code: int = 1) -> list[str]:
        said = io.StringIO()
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", None)
            streams.setattr(sys, "stderr", said)
            with pytest.raises(SystemExit) as end:
                command([str(argument) for argument in arguments], prog_name="a-command")
        assert end.value.code == code, said.getvalue()
        return [line.removeprefix(CLOSED) for line in said.getvalue().splitlines() if line.startswith(CLOSED)]

    return run


@pytest.mark.parametrize("command", [train, export, report, shards, sign, sweep])
def test_help_that_nobody_sees_is_an_error(command: click.Command, lost: Lost) -> None:
    for option in ("--help", "--version"):
        assert lost(command, option) == ["redirect it to a file"]
    assert lost(command, "--bad", code=2) == []


def test_a_check_that_nobody_sees_is_an_error(colours: Path, lost: Lost) -> None:
    for extra in ([], ["--format", "json"]):
        assert lost(train, "--data", colours, "--check", *extra) == ["redirect it to a file"]


def test_what_was_trained_and_exported_is_kept_and_named(colours: Path, tmp_path: Path, lost: Lost) -> None:
    run, package = tmp_path / "run", tmp_path / "package"
    assert lost(train, "--data", colours, "--output", run, *SMALL) == [f"the metrics are in {run}/best.safetensors"]
    assert load_trained(run).state.finished
    assert lost(report, "data", "--data", colours, "--output", tmp_path / "data.html") == [
        f"the report is in {tmp_path}/data.html"
    ]
    assert lost(export, "--run", run, "--output", package, "--single-file", "--wheel") == [
        f"what was exported is in {package}, {package}.mlic, {next(tmp_path.glob('*.whl'))}"
    ]
    assert json.loads((package / "manifest.json").read_text())["parity"]


def test_runs_that_were_compared_are_in_the_report(
    make_trained: Callable[..., TrainedModel], small_model: ModelConfig, tmp_path: Path, lost: Lost
) -> None:
    runs = [make_trained(small_model, name).folder for name in ("first", "second")]
    page = tmp_path / "compare.html"
    assert lost(report, "compare", *runs, "--output", page) == [f"the report is in {page}"]
    assert page.stat().st_size > 0


def test_shards_are_finished(colours: Path, tmp_path: Path, lost: Lost) -> None:
    folder = tmp_path / "shards"
    assert lost(shards, "--data", colours, "--output", folder) == [f"the shards are in {folder}"]
    assert lost(shards, "--verify", folder) == ["redirect it to a file"]


def test_trials_are_finished(colours: Path, tmp_path: Path, lost: Lost) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[dropout]\nchoices = [0.3]\n")
    folder = tmp_path / "sweep"
    arguments = ["--data", colours, "--space", space, "--trials", "1", "--output", folder, "--", *SMALL[:-2]]
    assert lost(sweep, *arguments) == [f"the runs are in {folder}; the same command prints their table again"]
    assert len(list(folder.rglob("best.safetensors"))) == 1


class Full(io.BytesIO):
    """A file on a full disk."""

    @override
    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_with_where_the_same_is(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", io.TextIOWrapper(Full(), write_through=True))
        streams.setattr(sys, "stderr", said)
        with pytest.raises(SystemExit) as end:
            report(["data", "--data", str(colours), "--output", str(tmp_path / "data.html")])
    assert end.value.code == 1
    assert said.getvalue().splitlines()[-1] == (
        f"Error: cannot write the output: {os.strerror(errno.ENOSPC)}; make room, or choose another place; "
        f"the report is in {tmp_path}/data.html"
    )


def test_a_missing_standard_error_costs_no_results(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, package = tmp_path / "run", tmp_path / "package"
    commands: list[tuple[click.Command, list[object], str]] = [
        (train, ["--data", colours, "--check"], "as CSV: picture in"),
        (train, ["--data", colours, "--output", run, *SMALL], "samples F1"),
        (export, ["--run", run, "--output", package], "equal decisions"),
    ]
    for command, arguments, expected in commands:
        out = io.StringIO()
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", out)
            streams.setattr(sys, "stderr", None)
            with pytest.raises(SystemExit) as end:
                command([str(argument) for argument in arguments])
        assert end.value.code == 0
        assert expected in out.getvalue()


@pytest.mark.parametrize(
    ("redirect", "code", "said"), [(">&-", 1, CLOSED + "redirect it to a file\n"), ("| true", 0, ""), ("2>&-", 0, "")]
)
def test_streams_that_a_shell_closes(redirect: str, code: int, said: str) -> None:
    here = str(Path(mlic_train.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
    line = f'"{sys.executable}" -m mlic_train --help {redirect}'
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout.startswith("Usage: ") == (redirect == "2>&-")
