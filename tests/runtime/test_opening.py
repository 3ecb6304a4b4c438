import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlic_runtime import ChoiceError, ManifestError, PackageError, Predictor, ProviderError
from mlic_runtime.base.machine import processor_name
from mlic_runtime.bench import benchmark as bench
from mlic_runtime.bench.benchmark import benchmark
from mlic_runtime.bench.inputs import BenchOptions
from mlic_runtime.graph.opening import open_graph, open_graphs
from mlic_runtime.graph.saved_precision import PrecisionChoice, graphs_digest, save_precision
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_runtime.providers.names import PROVIDERS

FakeRuntime = Callable[..., Any]

FIRST, RECOMMENDED = "the package's first", "recommended by the package"
CHOSEN, ASKED = "chosen by mlic-bench --choose", "as asked"


@pytest.fixture
def package(tiny: Path) -> ModelPackage:
    return load_package(tiny)


@pytest.fixture
def choose(package: ModelPackage) -> Callable[..., None]:
    """Write choices, provider=precision, for the tiny package on this machine."""

    def write(**precisions: str) -> None:
        for provider, precision in precisions.items():
            graphs = graphs_digest(package.manifest)
            save_precision(PrecisionChoice("tiny", graphs, provider, processor_name(), precision, {precision: 1.0}))

    return write


def recommending(package: ModelPackage, recommended: Mapping[str, str]) -> ModelPackage:
    return ModelPackage(package.path, dataclasses.replace(package.manifest, recommended=recommended))


def opened(package: ModelPackage, **options: Any) -> tuple[str, str, str]:
    graph = open_graph(package, **options)
    return graph.session.provider, graph.precision, graph.reason


# --- which precision


def test_auto_takes_the_first_graph_where_nobody_knows_better(package: ModelPackage) -> None:
    assert opened(package) == ("cpu", "fp32", FIRST)
    files = dict(sorted(package.manifest.files.items()))
    other = ModelPackage(package.path, dataclasses.replace(package.manifest, files=files))
    assert other.manifest.precisions == ("fp16", "fp32")
    assert opened(other) == ("cpu", "fp16", FIRST)


def test_auto_follows_the_package_on_the_provider_that_it_knows(package: ModelPackage) -> None:
    assert opened(recommending(package, {"cpu": "fp16"})) == ("cpu", "fp16", RECOMMENDED)
    assert opened(recommending(package, {"cuda": "fp16"})) == ("cpu", "fp32", FIRST)


def test_a_choice_of_the_user_comes_before_the_package(package: ModelPackage, choose: Callable[..., None]) -> None:
    choose(cpu="fp32", cuda="fp16")
    assert opened(recommending(package, {"cpu": "fp16"})) == ("cpu", "fp32", CHOSEN)
    choose(cpu="fp16")
    assert opened(recommending(package, {"cpu": "fp32"})) == ("cpu", "fp16", CHOSEN)


def test_a_precision_that_is_asked_for_is_taken(
    package: ModelPackage, choose: Callable[..., None], settings: Path
) -> None:
    choose(cpu="fp16")
    assert opened(recommending(package, {"cpu": "fp16"}), precision="fp32") == ("cpu", "fp32", ASKED)
    settings.write_text("broken")
    assert opened(package, precision="fp16") == ("cpu", "fp16", ASKED), "and the file is not looked at"
    with pytest.raises(ManifestError, match="has no int8 graph; it has: fp32, fp16"):
        open_graph(package, precision="int8")


def test_the_graph_of_that_precision_is_the_one_that_runs(
    tiny_copy: Path, choose: Callable[..., None], edit_manifest: Callable[..., None]
) -> None:
    """The two graphs give the same answers, so the other one is taken away."""
    (tiny_copy / "model.fp32.onnx").unlink()
    choose(cpu="fp16")
    predictor = Predictor.load(tiny_copy)
    assert (predictor.precision, predictor.precision_reason) == ("fp16", CHOSEN)
    assert predictor.predict(np.zeros((6, 8, 3), dtype=np.uint8), "red").labels == ("red",)
    with pytest.raises(PackageError, match=r"model\.fp32\.onnx: there is no such file"):
        Predictor.load(tiny_copy, precision="fp32")


def test_a_broken_file_of_choices_is_not_passed_over(package: ModelPackage, settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text("{}")
    with pytest.raises(ChoiceError, match="has schema_version None"):
        open_graph(package)
    with pytest.raises(ChoiceError, match="has schema_version None"):
        Predictor.load(package.path)
    with pytest.raises(ChoiceError, match="has schema_version None"):
        open_graph(package, provider="auto")


def test_a_bench_says_which_precision_auto_was(
    package: ModelPackage, choose: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "entry_points", lambda group: [])
    choose(cpu="fp16")
    assert benchmark(package, BenchOptions(runs=1, warmup=1))[0].precision == "fp16"
    assert benchmark(package, BenchOptions(runs=1, warmup=1, precision="fp32"))[0].precision == "fp32"


# --- on which provider


def test_the_precision_is_that_of_the_provider_that_loads(
    package: ModelPackage, choose: Callable[..., None], fake_runtime: FakeRuntime
) -> None:
    both = recommending(package, {"cuda": "fp16", "cpu": "fp32"})
    fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    assert opened(both, provider="auto") == ("cuda", "fp16", RECOMMENDED)
    assert opened(both, provider="cuda") == ("cuda", "fp16", RECOMMENDED)
    assert opened(both) == ("cpu", "fp32", RECOMMENDED)
    fake = fake_runtime(["cuda", "coreml", "cpu"], {"cpu"})
    assert opened(both, provider="auto") == ("cpu", "fp32", RECOMMENDED)
    assert [names[0] for names in fake.providers] == [PROVIDERS[name] for name in ("cuda", "coreml", "cpu")]
    choose(cuda="fp32", cpu="fp16")
    assert opened(both, provider="auto") == ("cpu", "fp16", CHOSEN)


def test_a_provider_that_was_asked_for_and_does_not_load_is_an_error(
    package: ModelPackage, fake_runtime: FakeRuntime
) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"})
    with pytest.raises(ProviderError, match="'cuda' did not load"):
        open_graph(package, provider="cuda")
    with pytest.raises(ProviderError, match="offers no provider 'coreml'"):
        open_graph(package, provider="coreml")


def test_a_graph_is_read_once_however_many_providers_are_tried(
    package: ModelPackage, fake_runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runtime(["cuda", "coreml", "cpu"], {"cpu"})
    reads: list[str] = []
    real = ModelPackage.read

    def read(self: ModelPackage, name: str) -> bytes:
        reads.append(name)
        return real(self, name)

    monkeypatch.setattr(ModelPackage, "read", read)
    open_graph(package, provider="auto")
    assert reads == ["model.fp32.onnx"]


def test_threads_and_spinning_reach_the_session(package: ModelPackage, fake_runtime: FakeRuntime) -> None:
    fake = fake_runtime(["cpu"], {"cpu"})
    assert open_graph(package, threads=3, spin=True).session.threads == 3
    assert fake.options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    with pytest.raises(ValueError, match="threads must be 1 or more, found 0"):
        open_graph(package, threads=0)


# --- all of them


def test_all_graphs_are_opened_on_the_best_provider_that_loads_them(
    package: ModelPackage, fake_runtime: FakeRuntime
) -> None:
    fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    sessions = open_graphs(package, provider="auto", threads=1)
    assert {name: session.provider for name, session in sessions.items()} == {"fp32": "cuda", "fp16": "cuda"}
    fake_runtime(["cuda", "cpu"], {"cpu"})
    sessions = open_graphs(package, provider="auto")
    assert {name: session.provider for name, session in sessions.items()} == {"fp32": "cpu", "fp16": "cpu"}
    with pytest.raises(ProviderError, match="'cuda' did not load"):
        open_graphs(package, provider="cuda")


@pytest.mark.parametrize("load", [open_graph, open_graphs])
def test_a_graph_and_its_manifest_must_agree(package: ModelPackage, load: Callable[..., object]) -> None:
    fewer = dataclasses.replace(package.manifest, labels=package.manifest.labels[:2])
    with pytest.raises(PackageError, match="has 3 outputs, but the manifest has 2 labels"):
        load(ModelPackage(package.path, fewer))
