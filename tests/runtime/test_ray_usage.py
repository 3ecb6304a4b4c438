"""`mlic-infer --engine ray` where Ray is not installed, and before it is asked for."""

import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import InputError
from mlic_runtime.ray.engine import connected, require_reachable


def run(*arguments: "str | Path") -> Result:
    return CliRunner().invoke(infer, [str(argument) for argument in arguments])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.csv"
    file.write_text("Caption\nred\n")
    return file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray"], "'--engine ray' needs '--output', a folder."),
        (["--engine", "ray", "--output", "out", "--format", "csv"], "'--engine ray' writes Parquet: leave '--format'"),
        (["--engine", "ray", "--output", "out", "--provider", "cuda"], "needs '--provider cpu'; found cuda."),
        (["--address", "auto"], "'--address' needs '--engine ray'."),
        (["--actors", "2"], "'--actors' needs '--engine ray'."),
        (["--rows-per-file", "8"], "'--rows-per-file' needs '--engine ray'."),
        (["--output", "."], "'--output' needs a file; '.' is a folder."),
        (["--engine", "spark"], "'spark' is not one of 'local', 'ray'."),
    ],
)
def test_options_that_do_not_go_together_are_refused(rows: Path, options: list[str], message: str) -> None:
    result = run("--input", rows, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_standard_input_cannot_be_read_twice() -> None:
    result = run("--input", "-", "--engine", "ray", "--output", "out")
    assert result.exit_code == 2
    assert "'--engine ray' needs an input that can be read again; found '--input -'." in result.stderr


def test_the_engine_needs_rows() -> None:
    assert "'--engine' needs '--input'." in run("a.jpg", "--engine", "ray").stderr


def test_without_ray_the_error_names_the_extra(
    rows: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    result = run("--input", rows, "--engine", "ray", "--output", tmp_path / "out", "--model", tiny)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: '--engine ray' needs Ray Data (")
    assert result.stderr.endswith("pip install 'mlic-runtime[ray]'\n")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_does_not_answer_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_reachable(address)
    with pytest.raises(InputError, match=f"cannot connect to the Ray cluster '{address}': .*refused"):
        require_reachable(address)
    with pytest.raises(InputError, match=r"cannot connect to the Ray cluster '127\.0\.0\.1:99999': "):
        require_reachable("127.0.0.1:99999")
    for address in ("auto", "local", "ray://nowhere:10001"):  # for Ray to judge
        require_reachable(address)


def test_a_cluster_that_answers_but_refuses_is_one_line_that_says_what_it_may_want(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(address: str, **_: object) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {address}\nand more")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=refuse))
    with pytest.raises(InputError) as caught, connected("ray://nowhere:10001", 1):
        pass
    assert str(caught.value) == (
        "cannot connect to the Ray cluster 'ray://nowhere:10001': Failed to connect to Ray cluster at "
        "ray://nowhere:10001; clusters may want a token (RAY_AUTH_MODE=token in the environment) and the same version "
        "of Ray"
    )


def test_a_uri_without_fsspec_names_the_extra(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    result = run("--input", "s3://bucket/rows.csv", "--model", tiny)
    assert result.exit_code == 1
    assert "URIs need fsspec: pip install 'mlic-runtime[remote]'" in result.stderr
