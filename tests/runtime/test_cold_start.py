import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlic_runtime.base import machine as memory
from mlic_runtime.bench.cold_start import IMPORTS, INFER, measure_cold_start
from mlic_runtime.bench.inputs import DEFAULT_CAPTION, BenchOptions, synthetic_jpeg
from mlic_runtime.errors import InputError
from mlic_runtime.package.model_package import ModelPackage, load_package


class Processes:
    """Stands in for processes: keeps their commands; says and returns what it is told to."""

    def __init__(self, stderr: str = "", code: int = 0) -> None:
        self.stderr, self.code = stderr, code
        self.commands: list[list[str]] = []
        self.pictures: list[bytes] = []

    def __call__(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.commands.append(list(command))
        if "--" in command:
            self.pictures.append(Path(command[command.index("--") + 1]).read_bytes())
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)


@pytest.fixture
def package(tiny: Path) -> ModelPackage:
    return load_package(tiny)


def test_processes_take_turns_and_one_more_tells_its_memory(package: ModelPackage) -> None:
    processes = Processes("Warning: x\ntiny@1.0.0: fp32 on cpu, 1 thread (precision: as asked)\n104857600\n")
    rounds: list[None] = []
    report = measure_cold_start(
        package, BenchOptions(threads=1, runs=2, warmup=1), run=processes, progress=lambda: rounds.append(None)
    )
    assert len(rounds) == 3
    assert [command[:2] for command in processes.commands] == [[sys.executable, "-c"]] * 7
    assert [command[2] for command in processes.commands[:6]] == [IMPORTS, INFER] * 3
    last = processes.commands[-1]
    assert "from mlic_runtime.cli.infer import infer\n" in last[2]
    assert last[3:11] == ["--verbose", "--precision", "auto", "--provider", "cpu", "--threads", "1", "--"]
    assert last[12:] == [DEFAULT_CAPTION]
    assert set(processes.pictures) == {synthetic_jpeg()[0]}
    assert not Path(last[11]).exists(), "the made-up picture is removed"
    assert report.ran == "tiny@1.0.0: fp32 on cpu, 1 thread (precision: as asked)"
    assert report.peak_memory_bytes == 104857600
    assert [(row.name, row.code) for row in report.processes] == [("imports", IMPORTS), ("mlic-infer", INFER)]
    assert 0 < report.ratio_p10 <= report.ratio <= report.ratio_p90
    assert report.notes == ()


def test_a_system_that_does_not_say_its_memory_gives_a_note(package: ModelPackage) -> None:
    report = measure_cold_start(package, BenchOptions(runs=1, warmup=1), run=Processes("None\n"))
    assert (report.peak_memory_bytes, report.ran) == (None, "tiny@1.0.0")
    assert report.notes == ("no peak memory: this system does not report it",)


def test_picture_and_caption_can_be_given(package: ModelPackage, tiny_picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"jpeg")
    processes = Processes("1")
    report = measure_cold_start(package, BenchOptions(image=str(path), caption="red", runs=1, warmup=1), run=processes)
    assert processes.commands[-1][-3:] == ["--", str(path), "red"]
    assert (report.picture, report.caption) == (str(path), "red")
    report = measure_cold_start(
        load_package(tiny_picture), BenchOptions(image=str(path), runs=1, warmup=1), run=processes
    )
    assert processes.commands[-1][-2:] == ["--", str(path)]
    assert report.caption is None


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("Note: x\nError: cannot read picture 'x'\n", "cannot read picture 'x'"),
        ("Traceback\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", "no message"),
    ],
)
def test_a_process_that_fails_is_an_error(package: ModelPackage, stderr: str, cause: str) -> None:
    with pytest.raises(InputError) as caught:
        measure_cold_start(package, BenchOptions(runs=1, warmup=1), run=Processes(stderr, code=1))
    assert str(caught.value) == f"a process of imports failed (exit code 1): {cause}"


def test_numbers_start_at_one(package: ModelPackage) -> None:
    for name in ("runs", "warmup"):
        with pytest.raises(InputError, match=f"{name} must be 1 or more, found 0"):
            measure_cold_start(package, BenchOptions(**{name: 0}))  # type: ignore[arg-type] # one of two ints


def test_peak_memory_is_read_from_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.peak_bytes() == 2048 * 1024
    status.unlink()
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.peak_bytes() is None
