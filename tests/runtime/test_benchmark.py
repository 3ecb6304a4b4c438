import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlic_runtime.bench import benchmark as bench
from mlic_runtime.bench.benchmark import BenchBackend, benchmark
from mlic_runtime.bench.inputs import DEFAULT_CAPTION, BenchOptions
from mlic_runtime.errors import CaptionError, ImageError, InputError, MlicError, PackageError
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import ModelPackage, load_package

Install = Callable[..., None]


class Echo:
    """A backend that is the runtime again, with every logit off by 0.25."""

    name = "echo"
    version = "1.2"
    log: "list[tuple[str, Any]]"

    def __init__(self, package: ModelPackage, threads: int, checkpoint: "str | None", precision: str) -> None:
        self.session = create_session(package.read_graph(precision), threads=threads)
        type(self).log = [("made", (threads, checkpoint, precision))]

    def run(
        self,
        pixels: npt.NDArray[np.uint8],
        input_ids: "npt.NDArray[np.int64] | None",
        attention_mask: "npt.NDArray[np.int64] | None",
    ) -> npt.NDArray[np.float32]:
        self.log.append(("run", pixels.shape))
        return np.add(self.session.run(pixels, input_ids, attention_mask), 0.25, dtype=np.float32)


class WrongModel(Echo):
    def run(self, *feed: Any) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(super().run(*feed)[:, :2])


def refuse(package: ModelPackage, threads: int, checkpoint: "str | None", precision: str) -> BenchBackend:
    raise PackageError("give a checkpoint")


@dataclass
class FakeEntryPoint:
    name: str
    target: Any

    def load(self) -> Any:
        if isinstance(self.target, str):
            return importlib.import_module(self.target)
        return self.target


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that these bench backends, {name: factory or module to import}, are installed."""

    def pretend(**backends: Any) -> None:
        entries = [FakeEntryPoint(name, target) for name, target in backends.items()]
        monkeypatch.setattr(bench, "entry_points", lambda group: entries if group == bench.ENTRY_POINT_GROUP else [])

    return pretend


@pytest.fixture
def package(tiny: Path) -> ModelPackage:
    return load_package(tiny)


def test_the_runtime_alone_is_measured_and_the_report_says_how(package: ModelPackage, install: Install) -> None:
    install()
    (report,) = benchmark(package, BenchOptions(runs=5, warmup=2, threads=1), batch_sizes=[3])
    assert (report.model, report.precision, report.provider) == ("tiny@1.0.0", "fp32", "cpu")
    assert (report.runs, report.warmup, report.batch_size, report.threads) == (5, 2, 3, 1)
    assert report.picture == "synthetic: pseudo-random pixels, seed 0"
    assert report.caption == DEFAULT_CAPTION
    assert report.tokens == 6
    (timing,) = report.timings
    assert timing.name == "mlic-runtime"
    assert 0 < timing.p50_ms <= timing.p90_ms <= timing.p99_ms
    assert timing.pictures_per_second > 0
    assert report.comparisons == ()
    assert report.notes == ("not compared with pytorch: install mlic-train, which brings it",)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["machine"]["cpus"] >= 1


def test_another_backend_takes_turns_and_its_logits_are_compared(package: ModelPackage, install: Install) -> None:
    install(echo=Echo)
    (report,) = benchmark(package, BenchOptions(runs=4, warmup=1, threads=1), batch_sizes=[2], checkpoint="somewhere")
    assert Echo.log == [("made", (1, "somewhere", "fp32"))] + [("run", (2, 6, 8, 3))] * 5
    assert [timing.name for timing in report.timings] == ["mlic-runtime", "echo"]
    (comparison,) = report.comparisons
    assert comparison.name == "echo"
    assert comparison.max_abs_difference == pytest.approx(0.25)
    assert 0 < comparison.ratio_p10 <= comparison.ratio <= comparison.ratio_p90


def test_the_ratio_is_the_median_over_pairs() -> None:
    ours, theirs = np.array([1.0, 2.0, 1.0, 1.0, 1.0]), np.array([2.0, 4.0, 3.0, 2.0, 9.0])
    zeros = np.zeros((1, 3), dtype=np.float32)
    found = bench._compare("echo", ours, theirs, zeros, zeros)
    assert (found.ratio, found.ratio_p10, found.ratio_p90) == (2.0, 2.0, 6.6)


def test_progress_is_told_after_every_round(package: ModelPackage, install: Install) -> None:
    install()
    rounds: list[None] = []
    benchmark(package, BenchOptions(runs=3, warmup=2), progress=lambda: rounds.append(None))
    assert len(rounds) == 5


def test_a_backend_that_cannot_run_is_a_note_unless_it_was_asked_for(package: ModelPackage, install: Install) -> None:
    install(pytorch=refuse, absent="no_such_module", echo=Echo)
    (report,) = benchmark(package, BenchOptions(runs=1, warmup=1))
    assert [timing.name for timing in report.timings] == ["mlic-runtime", "echo"]
    assert report.notes == (
        "not compared with absent: bench backend 'absent' cannot be imported: No module named 'no_such_module'",
        "not compared with pytorch: give a checkpoint",
    )
    assert len(benchmark(package, BenchOptions(runs=1, warmup=1), against=["echo", "echo"])[0].timings) == 2
    with pytest.raises(PackageError, match="give a checkpoint"):
        benchmark(package, BenchOptions(runs=1, warmup=1), against=["pytorch"])
    with pytest.raises(InputError, match="'absent' cannot be imported"):
        benchmark(package, BenchOptions(runs=1, warmup=1), against=["absent"])


def test_a_backend_may_wait_to_be_asked_for(package: ModelPackage, install: Install) -> None:
    class Slow(Echo):
        only_if_asked = "it takes minutes"

    install(pytorch=Echo, slow=Slow)
    (report,) = benchmark(package, BenchOptions(runs=1, warmup=1))
    assert report.notes == ("not compared with slow: it takes minutes; --against slow asks for it",)
    assert len(report.timings) == 2
    assert len(benchmark(package, BenchOptions(runs=1, warmup=1), against=["slow"])[0].timings) == 2


def test_an_unknown_backend_lists_the_installed_ones(package: ModelPackage, install: Install) -> None:
    install(echo=Echo)
    with pytest.raises(InputError, match=r"no bench backend 'tvm'; installed: echo$"):
        benchmark(package, against=["tvm"])
    install()
    with pytest.raises(InputError, match=r"'pytorch'; installed: none \(install mlic-train, which brings it\)"):
        benchmark(package, against=["pytorch"])


def test_a_backend_with_other_labels_is_not_the_same_model(package: ModelPackage, install: Install) -> None:
    install(wrong=WrongModel)
    with pytest.raises(PackageError, match=r"gave logits of shape \(1, 2\), the runtime \(1, 3\)"):
        benchmark(package, BenchOptions(runs=1, warmup=1))


def test_picture_and_caption_can_be_given(package: ModelPackage, install: Install) -> None:
    install()
    (report,) = benchmark(
        package, BenchOptions(image=np.zeros((9, 9, 3), dtype=np.uint8), caption="red", runs=1, warmup=1)
    )
    assert (report.picture, report.caption, report.tokens) == ("from memory", "red", 1)
    with pytest.raises(ImageError, match="no such file"):
        benchmark(package, BenchOptions(image="missing.jpg"))
    with pytest.raises(CaptionError):
        benchmark(package, BenchOptions(caption=7))  # type: ignore[arg-type] # the point of the test


def test_a_model_without_captions_is_measured_without_one(tiny_picture: Path, install: Install) -> None:
    install()
    (report,) = benchmark(load_package(tiny_picture), BenchOptions(runs=1, warmup=1))
    assert (report.caption, report.tokens) == (None, 0)
    with pytest.raises(MlicError, match="reads no caption"):
        benchmark(load_package(tiny_picture), BenchOptions(caption="red"))


@pytest.mark.parametrize("name", ["batch_size", "runs", "warmup"])
def test_numbers_start_at_one(package: ModelPackage, name: str) -> None:
    zero: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=f"{name} must be 1 or more, found 0"):
        _ = benchmark(package, batch_sizes=[0]) if name == "batch_size" else benchmark(package, BenchOptions(**zero))


def test_a_grid_measures_every_combination(package: ModelPackage, install: Install) -> None:
    install(echo=Echo)
    rounds: list[None] = []
    reports = benchmark(
        package,
        BenchOptions(runs=2, warmup=1),
        batch_sizes=[2, 1],
        threads=[1, 2],
        progress=lambda: rounds.append(None),
    )
    assert [(report.threads, report.batch_size) for report in reports] == [(1, 2), (1, 1), (2, 2), (2, 1)]
    assert len(rounds) == 12
    assert Echo.log == [("made", (2, None, "fp32")), *[("run", (2, 6, 8, 3))] * 3, *[("run", (1, 6, 8, 3))] * 3]
    for report in reports:
        assert [timing.name for timing in report.timings] == ["mlic-runtime", "echo"]
    with pytest.raises(InputError, match="batch_size must be 1 or more, found 0"):
        benchmark(package, batch_sizes=[1, 0])


def test_the_quantiles_of_a_timing_reach_from_the_shortest_run_to_the_longest() -> None:
    seconds = np.array([3.0, 1.0, 2.0])
    timing = bench._timing(WrongModel.__new__(WrongModel), seconds, 2)
    assert (timing.quantiles_ms[0], timing.quantiles_ms[10], timing.quantiles_ms[-1]) == (1000.0, 2000.0, 3000.0)
    assert (bench.QUANTILES[0], bench.QUANTILES[10], bench.QUANTILES[-1]) == (0, 50, 100)
    assert timing.quantiles_ms[10] == timing.p50_ms
    assert timing.pictures_per_second == 1.0


def test_a_busy_machine_is_a_note(
    package: ModelPackage, install: Install, load_average: Callable[[float], None]
) -> None:
    install(pytorch=Echo)
    load_average(1000.0)
    (note,) = benchmark(package, BenchOptions(runs=1, warmup=1))[0].notes
    assert note.startswith("the machine is busy: load average 1000.0 in the last minute, more than 0.5 for each of ")
