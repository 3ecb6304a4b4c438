import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlic_runtime.bench import benchmark as bench_module
from mlic_runtime.bench import cold_start
from mlic_runtime.cli.bench import bench

QUICK = ["--runs", "2", "--warmup", "1"]


@pytest.fixture(autouse=True)
def _tiny_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))
    monkeypatch.setattr(bench_module, "entry_points", lambda group: [])


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """No process is started; the commands are collected."""
    commands: list[list[str]] = []

    def measure(*args: Any, **options: Any) -> cold_start.ColdStartReport:
        class Done:
            returncode, stderr = 0, "52428800"

        def run(command: Any) -> Any:
            commands.append(list(command))
            return Done

        return original(*args, **options, run=run)

    original = cold_start.measure_cold_start
    monkeypatch.setattr(cold_start, "measure_cold_start", measure)
    return iter([commands])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, [*QUICK, *arguments])


# --- batch sizes and threads


def test_lists_give_every_combination_in_one_table() -> None:
    result = run("--batch-size", "1,3", "--threads", "1,2")
    assert result.exit_code == 0
    head, rows = result.stdout.split("\n\n")
    assert "measured   the graph alone, warm: 2 runs after 1, 1, 2 threads\n" in head
    title, *lines = rows.splitlines()
    assert title.split()[:5] == ["threads", "batch", "backend", "p50", "ms"]
    assert [line.split()[:3] for line in lines] == [
        [threads, batch, "mlic-runtime"] for threads in "12" for batch in "13"
    ]


def test_lists_give_a_report_for_each_combination_as_json() -> None:
    found = json.loads(run("--batch-size", "3,1", "--threads", "1", "--json").stdout)
    assert list(found) == ["command", "combinations"]
    single = json.loads(run("--batch-size", "3", "--threads", "1", "--format", "json").stdout)
    assert [report["batch_size"] for report in found["combinations"]] == [3, 1]
    for report in found["combinations"]:
        assert report.keys() == single.keys() - {"command"}
        assert len(report["timings"][0]["quantiles_ms"]) == len(bench_module.QUANTILES)


def test_a_number_that_is_there_twice_counts_once() -> None:
    assert json.loads(run("--batch-size", "2, 2", "--json").stdout)["batch_size"] == 2


@pytest.mark.parametrize("value", ["", "0", "1,", "1,x", "1;2", "1.5"])
@pytest.mark.parametrize("option", ["--batch-size", "--threads"])
def test_what_is_no_list_of_counts_is_wrong_usage(option: str, value: str) -> None:
    result = run(option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    expected = "expected a whole number from 1 on, or several such as 1,2,4"
    assert f"'{option}': found {value!r}; {expected}" in " ".join(result.stderr.split())


# --- a busy machine


@pytest.mark.parametrize("arguments", [[], ["--batch-size", "1,2"], ["--stages"], ["--choose"]])
def test_a_busy_machine_is_said_once_on_stderr(load_average: Callable[[float], None], arguments: list[str]) -> None:
    load_average(1000.0)
    result = run(*arguments, "--json")
    assert result.exit_code == 0
    assert result.stderr.count("Note: the machine is busy: load average 1000.0 in the last minute, more than 0.5 ") == 1
    assert "the machine is busy" in result.stdout
    load_average(0.0)
    assert "busy" not in run(*arguments).stderr


# --- --stages


def test_stages_are_a_table_or_json() -> None:
    result = run("--stages", "--caption", "bright red")
    assert result.exit_code == 0
    title, *lines = result.stdout.split("\n\n")[1].splitlines()
    assert title.split() == ["stage", "p50", "ms", "p90", "ms", "of", "predict"]
    names = ["decode", "preprocess", "tokenise", "run", "postprocess", "predict"]
    assert [line.split()[0] for line in lines[:-1]] == names
    assert lines[-1].startswith("outside the graph: ")
    report = json.loads(run("--stages", "--precision", "fp16", "--json").stdout)
    assert list(report)[:3] == ["command", "model", "precision"]
    assert [stage["name"] for stage in report["stages"]] == names[:-1]
    assert report["precision"] == "fp16"


def test_a_picture_that_cannot_be_read_is_an_error() -> None:
    result = run("--stages", "--image", "missing.jpg")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: cannot read picture 'missing.jpg': there is no such file or folder\n"


# --- --cold-start


def test_cold_start_hands_the_options_on(processes: Iterator[list[list[str]]]) -> None:
    commands = next(processes)
    result = run("--cold-start", "--threads", "1", "--precision", "fp16", "--spin")
    assert result.exit_code == 0
    assert len(commands) == 7
    assert commands[1][3:11] == ["--precision", "fp16", "--provider", "cpu", "--threads", "1", "--spin", "--"]
    assert "peak memory of mlic-infer: 52.4 MB resident\n" in result.stdout


def test_cold_start_has_fewer_rounds_by_default(processes: Iterator[list[list[str]]]) -> None:
    result = CliRunner().invoke(bench, ["--cold-start", "--json"])
    report = json.loads(result.stdout)
    assert (report["runs"], report["warmup"], len(next(processes))) == (10, 1, 23)
    assert [row["name"] for row in report["processes"]] == ["imports", "mlic-infer"]


# --- usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choose", "--stages"], "'--choose' and '--stages' exclude each other."),
        (["--stages", "--cold-start"], "'--stages' and '--cold-start' exclude each other."),
        (["--stages", "--against", "pytorch"], "'--stages' and '--against' exclude each other."),
        (["--cold-start", "--checkpoint", "x"], "'--cold-start' and '--checkpoint' exclude each other."),
        (["--stages", "--batch-size", "1,2"], "'--stages' measures one picture at a time; found '--batch-size' 1,2."),
        (["--cold-start", "--threads", "1,2"], "'--cold-start' takes one number of threads; found '--threads' 1,2."),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
