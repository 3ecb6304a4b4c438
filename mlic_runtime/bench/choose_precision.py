"""Choice of the precision and the provider that run a model package best on this machine, by measurement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlic_runtime.base.machine import busy_notes
from mlic_runtime.base.override import override
from mlic_runtime.errors import ProviderError
from mlic_runtime.graph.opening import open_graphs
from mlic_runtime.graph.saved_precision import PrecisionChoice, ProviderChoice, graphs_digest
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.providers.library import available_providers
from mlic_runtime.providers.names import AUTO, candidates

from .inputs import BenchOptions, package_inputs
from .latency import fastest, measure_latency
from .timing import Report, describe_machine


@dataclass(frozen=True)
class MeasuredPrecision:
    """A graph: its size, and the wall time of one warm run of one picture in milliseconds."""

    provider: str
    precision: str
    bytes: int
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ChoiceReport(Report):
    """A measurement, with how and where it was made; `chosen` is the precision that `latency.fastest` takes.

    `provider` is the one that it takes of those that were measured. `choices` and `providers` are to be saved.
    """

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
    choices: tuple[PrecisionChoice, ...]
    providers: tuple[ProviderChoice, ...]

    @override
    def to_dict(self) -> dict[str, Any]:
        data = super().to_dict()
        del data["choices"], data["providers"]  # they repeat the rest
        return data


def choose_precision(
    package: ModelPackage,
    options: BenchOptions | None = None,
    *,
    progress: Callable[[], object] = lambda: None,
) -> ChoiceReport:
    """Measure every graph of a package in turns; nothing is saved (see `saved_precision.save_choices`).

    The arguments are those of `benchmark.benchmark`; the precision among `options` is ignored. With the provider "auto"
    every provider that loads here is measured, and one of them chosen.

    Raises:
        InputError: a picture or caption cannot be used.
        MlicError: a graph cannot run.
    """
    options = options or BenchOptions()
    manifest = package.manifest
    notes = busy_notes()
    inputs = package_inputs(package, image=options.image, caption=options.caption)
    sessions, more = _load_all(package, options)
    latency = measure_latency(sessions, inputs, runs=options.runs, warmup=options.warmup, progress=progress)
    providers = list(dict.fromkeys(provider for provider, _ in latency))
    by_provider = {
        name: {precision: spec for (provider, precision), spec in latency.items() if provider == name}
        for name in providers
    }
    best = {provider: fastest(specs) for provider, specs in by_provider.items()}
    at_best = {provider: by_provider[provider][precision] for provider, precision in best.items()}
    chosen = fastest(at_best, tuple(reversed(providers)))  # the CPU is the last of them
    used = sessions[chosen, best[chosen]]
    about = manifest.title, graphs_digest(manifest)
    machine = at_best[chosen].machine
    return ChoiceReport(
        model=manifest.title,
        chosen=best[chosen],
        provider=chosen,
        threads=used.threads,
        spin=options.spin,
        warmup=options.warmup,
        runs=options.runs,
        picture=inputs.picture,
        caption=inputs.caption,
        tokens=inputs.tokens,
        machine=describe_machine(),
        precisions=tuple(
            MeasuredPrecision(provider, name, manifest.files[manifest.graph_name(name)].bytes, spec.p50_ms, spec.p90_ms)
            for (provider, name), spec in latency.items()
        ),
        notes=(*notes, *more),
        choices=tuple(
            PrecisionChoice(*about, name, machine, best[name], {key: spec.p50_ms for key, spec in specs.items()})
            for name, specs in by_provider.items()
        ),
        providers=(
            (ProviderChoice(*about, machine, chosen, {name: spec.p50_ms for name, spec in at_best.items()}),)
            if options.provider == AUTO
            else ()
        ),
    )


def _load_all(
    package: ModelPackage, options: BenchOptions
) -> tuple[dict[tuple[str, str], GraphSession], tuple[str, ...]]:
    """Return {(provider, precision): session}, and notes on the providers that do not load."""
    sessions, notes = {}, []
    names = candidates(options.provider, available_providers())
    for name in names:
        try:
            loaded = open_graphs(
                package, provider=name, threads=options.threads, spin=options.spin, cache=options.cache
            )
        except ProviderError as error:
            if name == names[-1]:
                raise
            notes.append(f"not measured: {error}")
            continue
        sessions.update({(name, precision): session for precision, session in loaded.items()})
    return sessions, tuple(notes)
