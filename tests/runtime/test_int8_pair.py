"""Two int8 graphs in one package: which of them runs on which processor."""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from mlic_runtime import ManifestError, Predictor
from mlic_runtime.base import machine
from mlic_runtime.base.machine import has_dot_product, processor_name
from mlic_runtime.bench.choose_precision import choose_precision
from mlic_runtime.bench.inputs import BenchOptions
from mlic_runtime.cli.infer import infer
from mlic_runtime.graph.opening import open_graph, open_graphs, precisions_here, runnable_precisions
from mlic_runtime.graph.saved_precision import PrecisionChoice, graphs_digest, save_precision
from mlic_runtime.package.manifest import FULL_RANGE, REDUCED_RANGE
from mlic_runtime.package.model_package import ModelPackage, load_package

Processor = Callable[[str], None]

VNNI = "flags : fpu avx2 avx512f avx512_vnni"
AVX_VNNI = "flags : fpu avx2 avx_vnni"
AVX512 = "flags : fpu avx2 avx512f avx512bw"
ARM_DOT = "Features : fp asimd asimddp"
ARM = "Features : fp asimd crc32"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Processor]:
    """Pretend to run on Linux, on a processor of which /proc/cpuinfo has this line."""

    def pretend(line: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : Z80\n{line}\n\nprocessor : 1\n")
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(sys, "platform", "linux")
        has_dot_product.cache_clear()

    yield pretend
    has_dot_product.cache_clear()


@pytest.fixture
def make_package(tiny: Path, tmp_path: Path) -> Callable[..., ModelPackage]:
    """Write the tiny package with a copy of its graph for each precision; returns it."""

    def make(precisions: Sequence[str], recommended: str | None = None) -> ModelPackage:
        folder = tmp_path / "-".join(precisions)
        shutil.copytree(tiny, folder)
        data = json.loads((folder / "manifest.json").read_text())
        graph = (folder / "model.fp32.onnx").read_bytes()
        others = {name: spec for name, spec in data["files"].items() if spec["precision"] is None}
        for name in folder.glob("*.onnx"):
            name.unlink()
        digest = hashlib.sha256(graph).hexdigest()
        graphs = {}
        for precision in precisions:
            (folder / f"model.{precision}.onnx").write_bytes(graph)
            graphs[f"model.{precision}.onnx"] = {"sha256": digest, "bytes": len(graph), "precision": precision}
        data.update(files={**graphs, **others}, metrics={}, parity={})
        data["recommended"] = {} if recommended is None else {"cpu": recommended}
        (folder / "manifest.json").write_text(json.dumps(data))
        return load_package(folder)

    return make


BOTH = ("fp32", FULL_RANGE, REDUCED_RANGE)


@pytest.mark.parametrize(
    ("line", "expected"), [(VNNI, True), (AVX_VNNI, True), (ARM_DOT, True), (AVX512, False), (ARM, False), ("", False)]
)
def test_linux_says_whether_bytes_are_multiplied_safely(processor: Processor, line: str, expected: bool) -> None:
    processor(line)
    assert has_dot_product() == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"hw.optional.arm.FEAT_DotProd": "1"}, True),
        ({"machdep.cpu.leaf7_features": "AVX2 AVX512F AVX512VNNI"}, True),
        ({"machdep.cpu.leaf7_features": "AVX2 BMI2"}, False),
        ({}, False),
    ],
)
def test_macos_says_it_too(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], expected: bool
) -> None:
    processor(VNNI)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_sysctl", lambda name: facts.get(name, ""))
    assert has_dot_product() == expected


def test_a_missing_sysctl_means_no() -> None:
    assert machine._sysctl("no.such.name") == ""


@pytest.mark.parametrize(("line", "runs"), [(VNNI, FULL_RANGE), (AVX512, REDUCED_RANGE)])
def test_int8_means_the_graph_for_the_processor(
    processor: Processor, make_package: Callable[..., ModelPackage], line: str, runs: str
) -> None:
    processor(line)
    package = make_package(BOTH, recommended=FULL_RANGE)
    assert open_graph(package).precision == runs
    for asked in (FULL_RANGE, REDUCED_RANGE):
        opened = open_graph(package, precision=asked)
        assert opened.precision == runs
        assert opened.reason.startswith("as asked")
        assert (opened.reason == "as asked") == (asked == runs)
        again = ModelPackage(package.path, dataclasses.replace(package.manifest, recommended={"cpu": asked}))
        assert open_graph(again).precision == runs
        assert open_graph(again).reason.startswith("recommended by the package")
    assert list(open_graphs(package)) == ["fp32", runs]
    assert open_graph(package, precision="fp32").precision == "fp32"


def test_the_reason_names_what_was_asked_for_and_why_not(
    processor: Processor, make_package: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "orange").save(tmp_path / "orange.png")
    processor(AVX512)
    package = make_package(BOTH)
    command = [
        "--model",
        str(package.path),
        str(tmp_path / "orange.png"),
        "red",
        "--verbose",
        "--precision",
        FULL_RANGE,
    ]
    result = CliRunner().invoke(infer, command)
    assert result.exit_code == 0, result.stderr
    assert "tiny@1.0.0: int8 on cpu" in result.stderr
    assert "as asked: int8-full, as this processor has no VNNI or ARM dot product" in result.stderr
    processor(VNNI)
    command[-1] = REDUCED_RANGE
    shown = CliRunner().invoke(infer, command).stderr
    assert "tiny@1.0.0: int8-full on cpu" in shown
    assert "as asked: int8, as this processor has VNNI or the ARM dot product" in shown


def test_choose_measures_only_what_is_right_here_and_saves_it_for_this_processor(
    processor: Processor, make_package: Callable[..., ModelPackage]
) -> None:
    package = make_package(BOTH)
    for line, runs in ((AVX512, REDUCED_RANGE), (VNNI, FULL_RANGE)):
        processor(line)
        report = choose_precision(package, BenchOptions(runs=1, warmup=1, threads=1))
        assert [row.precision for row in report.precisions] == ["fp32", runs]
    digest = graphs_digest(package.manifest)
    save_precision(PrecisionChoice("tiny@1.0.0", digest, "cpu", processor_name(), FULL_RANGE, {FULL_RANGE: 1.0}))
    assert open_graph(package).reason == "chosen by mlic-bench --choose"
    assert open_graph(package).precision == FULL_RANGE


def test_a_package_with_one_int8_graph_is_read_as_before(
    processor: Processor, make_package: Callable[..., ModelPackage]
) -> None:
    package = make_package(("fp32", REDUCED_RANGE), recommended=REDUCED_RANGE)
    for line in (VNNI, AVX512, ARM):
        processor(line)
        assert precisions_here(package.manifest) == ("fp32", REDUCED_RANGE)
        opened = open_graph(package)
        assert (opened.precision, opened.reason) == (REDUCED_RANGE, "recommended by the package")


@pytest.mark.parametrize("line", [VNNI, AVX512])
def test_a_package_with_one_graph_alone_runs_it_wherever_it_is_right(
    processor: Processor, make_package: Callable[..., ModelPackage], line: str
) -> None:
    processor(line)
    package = make_package(BOTH, recommended=FULL_RANGE)
    right = runnable_precisions(package.manifest)
    assert right == (BOTH if line == VNNI else ("fp32", REDUCED_RANGE))
    for precision in right:
        opened = open_graph(package.with_graph(precision), precision=precision)
        assert (opened.precision, opened.reason) == (precision, "as asked")
    if line == AVX512:
        with pytest.raises(ManifestError, match="needs a processor with VNNI"):
            open_graph(package.with_graph(FULL_RANGE))


def test_a_graph_that_would_be_wrong_here_does_not_run(
    processor: Processor, make_package: Callable[..., ModelPackage]
) -> None:
    package = make_package((FULL_RANGE, "fp32"), recommended=FULL_RANGE)
    processor(AVX_VNNI)
    assert open_graph(package, precision=REDUCED_RANGE).precision == FULL_RANGE
    processor(AVX512)
    assert (open_graph(package).precision, open_graph(package).reason) == ("fp32", "the package's first")
    for asked in (FULL_RANGE, REDUCED_RANGE):
        with pytest.raises(ManifestError, match=r"int8-full graph of model package tiny@1\.0\.0 needs .*\(fp32\)"):
            open_graph(package, precision=asked)
    alone = make_package((FULL_RANGE,))
    with pytest.raises(ManifestError, match="it has none"):
        Predictor.load(alone.path)
