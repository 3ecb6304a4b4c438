"""Choice of the precision of a model package that is best on this machine, by measurement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlic_runtime.base.machine import busy_notes
from mlic_runtime.base.override import override
from mlic_runtime.graph.opening import open_graphs
from mlic_runtime.graph.saved_precision import PrecisionChoice, graphs_digest
from mlic_runtime.package.model_package import ModelPackage

from .inputs import BenchOptions, package_inputs
from .latency import fastest, measure_latency
from .timing import Report, describe_machine


@dataclass(frozen=True)
class MeasuredPrecision:
    """A graph: its size, and the wall time of one warm run of one picture in milliseconds."""

    precision: str
    bytes: int
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ChoiceReport(Report):
    """A measurement, with how and where it was made; `chosen` is the precision that `latency.fastest` takes."""

    model: str
    chosen: str
    provider: str
    threads: int
    spin: bool
    warmup: int
    runs: int
    picture: str
    caption: str | None
    tokens: int
    machine: dict[str, str | int]
    precisions: tuple[MeasuredPrecision, ...]
    notes: tuple[str, ...]
    choice: PrecisionChoice

    @override
    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        del data["choice"]  # it repeats the rest
        return data


def choose_precision(
    package: ModelPackage,
    options: BenchOptions | None = None,
    *,
    progress: Callable[[], object] = lambda: None,
) -> ChoiceReport:
    """Measure every graph of a package in turns; nothing is saved (see `saved_precision.save_precision`).

    The arguments are those of `benchmark.benchmark`; the precision among `options` is ignored.

    Raises:
        InputError: a picture or caption cannot be used.
        MlicError: a graph cannot run.
    """
    options = options or BenchOptions()
    manifest = package.manifest
    notes = busy_notes()
    inputs = package_inputs(package, image=options.image, caption=options.caption)
    sessions = open_graphs(
        package, provider=options.provider, threads=options.threads, spin=options.spin, cache=options.cache
    )
    latency = measure_latency(sessions, inputs, runs=options.runs, warmup=options.warmup, progress=progress)
    chosen = fastest(latency)
    used = sessions[chosen]
    return ChoiceReport(
        model=manifest.title,
        chosen=chosen,
        provider=used.provider,
        threads=used.threads,
        spin=options.spin,
        warmup=options.warmup,
        runs=options.runs,
        picture=inputs.picture,
        caption=inputs.caption,
        tokens=inputs.tokens,
        machine=describe_machine(),
        precisions=tuple(
            MeasuredPrecision(name, manifest.files[manifest.graph_name(name)].bytes, spec.p50_ms, spec.p90_ms)
            for name, spec in latency.items()
        ),
        notes=notes,
        choice=PrecisionChoice(
            model=manifest.title,
            graphs=graphs_digest(manifest),
            provider=used.provider,
            processor=latency[chosen].machine,
            precision=chosen,
            p50_ms={name: spec.p50_ms for name, spec in latency.items()},
        ),
    )
