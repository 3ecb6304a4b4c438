import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlic_runtime.base import machine as cpus
from mlic_runtime.bench.inputs import DEFAULT_CAPTION, BenchInputs, make_inputs, package_inputs
from mlic_runtime.bench.latency import WORTH_IT, fastest, measure_latency
from mlic_runtime.errors import CaptionError, ImageError, InputError
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.manifest import ImageSpec, LatencySpec, TextSpec
from mlic_runtime.package.model_package import load_package

IMAGE, TEXT = ImageSpec(height=6, width=8), TextSpec(max_length=6, vocab_size=7)


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeSession:
    """A graph whose runs take the given seconds, one after the other."""

    threads = 3

    def __init__(self, name: str, clock: Clock, seconds: list[float], log: list[str]) -> None:
        self.name, self.clock, self.seconds, self.log = name, clock, iter(seconds), log

    def run(self, pixels: Any, input_ids: Any, attention_mask: Any) -> npt.NDArray[np.float32]:
        self.log.append(self.name)
        self.clock.now += next(self.seconds)
        return np.zeros((1, 3), dtype=np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def inputs(tiny: Path) -> BenchInputs:
    return make_inputs(IMAGE, TEXT, (tiny / "tokenizer.json").read_bytes())


def took(**p50_ms: float) -> dict[str, LatencySpec]:
    return {precision: LatencySpec("a machine", 1, 50, value, value * 1.5) for precision, value in p50_ms.items()}


# --- inputs


def test_inputs_are_made_without_a_package(tiny: Path) -> None:
    tokenizer = (tiny / "tokenizer.json").read_bytes()
    inputs = make_inputs(IMAGE, TEXT, tokenizer, caption="red no", batch_size=2)
    assert inputs.pixels.shape == (2, 6, 8, 3)
    assert inputs.pixels.dtype == np.uint8
    assert (inputs.pixels[0] == inputs.pixels[1]).all()
    assert inputs.pixels.std() > 50, "noise, so that no graph has it easy"
    assert inputs.input_ids is not None
    assert inputs.attention_mask is not None
    assert inputs.input_ids.tolist() == [[2, 6], [2, 6]]
    assert inputs.attention_mask.tolist() == [[1, 1], [1, 1]]
    assert (inputs.picture, inputs.caption, inputs.tokens) == ("synthetic: pseudo-random pixels, seed 0", "red no", 2)
    again = make_inputs(IMAGE, TEXT, tokenizer)
    assert (again.pixels[0] == inputs.pixels[0]).all()
    assert again.caption == DEFAULT_CAPTION


def test_inputs_without_captions_have_only_pixels() -> None:
    inputs = make_inputs(IMAGE, None, None, image=np.full((6, 8, 3), 9, dtype=np.uint8))
    assert (inputs.input_ids, inputs.attention_mask, inputs.caption, inputs.tokens) == (None, None, None, 0)
    assert (inputs.pixels == 9).all()
    assert inputs.picture == "from memory"


def test_what_cannot_be_used_is_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match="the model reads no caption: leave it out"):
        make_inputs(IMAGE, None, None, caption="red")
    with pytest.raises(ImageError, match=r"'missing.jpg': there is no such file"):
        make_inputs(IMAGE, None, None, image="missing.jpg")
    with pytest.raises(CaptionError):
        package_inputs(load_package(tiny), caption=7)  # type: ignore[arg-type] # the point of the test
    with pytest.raises(ValueError, match="text_spec and tokenizer go together"):
        make_inputs(IMAGE, TEXT, None)
    with pytest.raises(ValueError, match="text_spec and tokenizer go together"):
        make_inputs(IMAGE, None, b"{}")


# --- measuring


def test_graphs_take_turns_and_warm_up_is_not_counted(clock: Clock, inputs: BenchInputs) -> None:
    log: list[str] = []
    sessions: Any = {
        "fp32": FakeSession("A", clock, [9, 9, 9, 9, 0.010, 0.020, 0.030], log),
        "int8": FakeSession("B", clock, [9, 9, 9, 9, 0.004, 0.004, 0.009], log),
    }
    rounds: list[None] = []
    found = measure_latency(sessions, inputs, runs=3, warmup=4, progress=lambda: rounds.append(None))
    assert log == ["A", "B"] * 7
    assert len(rounds) == 7
    machine = cpus.processor_name()
    assert found == {
        "fp32": LatencySpec(machine, 3, 3, p50_ms=20.0, p90_ms=28.0),
        "int8": LatencySpec(machine, 3, 3, p50_ms=4.0, p90_ms=8.0),
    }


def test_real_graphs_are_measured(tiny: Path, inputs: BenchInputs) -> None:
    sessions = {
        name: create_session((tiny / f"model.{name}.onnx").read_bytes(), threads=1) for name in ("fp16", "fp32")
    }
    found = measure_latency(sessions, inputs, runs=2, warmup=1)
    assert list(found) == ["fp16", "fp32"]
    for spec in found.values():
        assert (spec.threads, spec.runs) == (1, 2)
        assert 0 < spec.p50_ms <= spec.p90_ms


@pytest.mark.parametrize("name", ["runs", "warmup"])
def test_rounds_start_at_one(inputs: BenchInputs, name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=f"{name} must be 1 or more, found 0"):
        measure_latency({}, inputs, **options)


def test_a_latency_is_that_of_one_picture() -> None:
    with pytest.raises(ValueError, match="one picture, found 2 rows"):
        measure_latency({}, make_inputs(IMAGE, None, None, batch_size=2))


# --- deciding


@pytest.mark.parametrize(
    ("p50_ms", "expected"),
    [
        ({"fp32": 10.0}, "fp32"),
        ({"int8": 10.0}, "int8"),
        ({"fp32": 10.0, "int8": 9.6}, "fp32"),
        ({"fp32": 10.0, "int8": 9.5}, "int8"),
        ({"int8": 9.5, "fp32": 10.0}, "int8"),
        ({"fp32": 10.0, "fp16": 20.0, "int8": 9.6}, "fp32"),
        ({"fp32": 10.0, "fp16": 9.0, "int8": 8.7}, "fp16"),
        ({"fp32": 10.0, "fp16": 9.0, "int8": 8.5}, "int8"),
        ({"fp32": 10.0, "fp16": 9.6, "int8": 9.3}, "int8"),
        ({"fp32": 9.0, "fp16": 10.0, "int8": 9.0}, "fp32"),
    ],
)
def test_a_less_exact_precision_must_earn_its_place(p50_ms: dict[str, float], expected: str) -> None:
    assert WORTH_IT == 0.05
    assert fastest(took(**p50_ms)) == expected


def test_the_order_of_exactness_may_be_another() -> None:
    assert fastest(took(fp16=10.0, fp32=9.9), ("fp16", "fp32")) == "fp16"
    assert fastest(took(fp16=10.0, fp32=9.9), ("fp32", "fp16")) == "fp32"


def test_there_must_be_something_to_decide() -> None:
    with pytest.raises(ValueError, match="at least one of fp32, fp16, int8-full, int8; found none"):
        fastest({})
    with pytest.raises(ValueError, match="at least one of fp32, fp16, int8-full, int8; found fp8"):
        fastest(took(fp8=1.0))


# --- the processor's name


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: another\n", "Some CPU @ 2 GHz"),
        ("model name\t:\nprocessor\t: 0\n", "by platform"),
        ("Hardware\t: BCM2835\n", "by platform"),
        (None, "by platform"),
    ],
)
def test_the_processor_is_called_by_its_model_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: "str | None", expected: str
) -> None:
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(cpus, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "by platform")
    assert cpus.processor_name() == expected


def test_a_processor_always_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_CPUINFO", tmp_path / "missing")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpus.processor_name() == "aarch64"
    monkeypatch.setattr(platform, "machine", lambda: "")
    assert cpus.processor_name() == "unknown"


def test_a_machine_is_busy_above_half_a_load_for_each_cpu(
    load_average: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "available_cpus", lambda: 4)
    load_average(2.0)
    assert cpus.busy_notes() == ()
    load_average(2.1)
    assert cpus.busy_notes() == (
        "the machine is busy: load average 2.1 in the last minute, more than 0.5 for each of 4 CPUs; "
        "trust ratios rather than times",
    )
    monkeypatch.delattr(os, "getloadavg")
    assert cpus.busy_notes() == ()
