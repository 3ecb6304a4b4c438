"""Writes that fail in the middle; see the fixture `room`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlic_runtime.base.files import replace_file
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import ChoiceError
from mlic_runtime.graph.opening import open_graph
from mlic_runtime.graph.saved_precision import PrecisionChoice, save_precision
from mlic_runtime.package.model_package import load_package

Room = Callable[[int], AbstractContextManager[None]]


@pytest.mark.parametrize("size", [0, 1, 50, 99])
def test_a_file_is_replaced_wholly_or_not_at_all(size: int, tmp_path: Path, room: Room) -> None:
    path = tmp_path / "file"
    replace_file(path, b"older")
    with room(size), pytest.raises(OSError, match="File too large"):
        replace_file(path, bytes(100))
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_of_chosen_precisions_stays_whole(settings: Path, room: Room) -> None:
    save_precision(PrecisionChoice("tiny", "0" * 64, "cpu", "some", "fp32", {"fp32": 1.0}))
    older = settings.read_bytes()
    with room(len(older) // 2), pytest.raises(ChoiceError, match=r"cannot write .*: File too large"):
        save_precision(PrecisionChoice("tiny", "0" * 64, "cpu", "some", "fp16", {"fp16": 1.0}))
    assert settings.read_bytes() == older
    assert list(settings.parent.iterdir()) == [settings]


def predict(rows: Path, output: Path, tiny: Path, *more: str) -> Result:
    options = ["--model", str(tiny), "--batch-size", "4", "--threads", "1", "--no-cache"]
    return CliRunner().invoke(infer, ["--input", str(rows), "--output", str(output), *options, *more])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_results_of_a_batch_go_on_when_there_is_room(share: float, tiny: Path, tmp_path: Path, room: Room) -> None:
    rows, output = tmp_path / "rows.csv", tmp_path / "out" / "results.jsonl"
    output.parent.mkdir()
    rows.write_text("caption\n" + "red\nno blue\ngreen\n" * 20)
    assert predict(rows, tmp_path / "whole", tiny).exit_code == 0
    whole = (tmp_path / "whole").read_bytes()
    output.write_bytes(b"older\n")
    with room(int(share * len(whole))):
        result = predict(rows, output, tiny)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "results.jsonl.partial': File too large; solve that, then go on with --resume" in result.stderr
    assert output.read_bytes() == b"older\n"
    assert predict(rows, output, tiny, "--resume").exit_code == 0
    assert output.read_bytes() == whole
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_graph_that_does_not_fit_into_the_cache_is_used_without_it(
    share: float, tiny: Path, graph_cache: Path, room: Room
) -> None:
    """1.0: there is room for the graph but not for what proves that it is whole."""
    package = load_package(tiny)
    assert open_graph(package, threads=1).origin == "added to the cache"
    (entry,) = graph_cache.iterdir()
    size = entry.stat().st_size - 48
    entry.unlink()
    with room(int(share * size)):
        assert open_graph(package, threads=1).origin.startswith("not ")
    assert list(graph_cache.iterdir()) == []
    assert open_graph(package, threads=1).origin == "added to the cache"
