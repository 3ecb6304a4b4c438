"""Which precision of a model package is best on this machine, by measurement."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mlic_runtime.base.machine import busy_notes
from mlic_runtime.graph.opening import open_graphs
from mlic_runtime.graph.saved_precision import PrecisionChoice, graphs_digest
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.picture.decode import ImageSource

from .inputs import package_feed
from .latency import fastest, measure_latency
from .timing import describe_machine, require_positive


@dataclass(frozen=True)
class MeasuredPrecision:
    """One graph: its size, and the wall time of one warm run of one picture in milliseconds."""

    precision: str
    bytes: int
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ChoiceReport:
    """What was measured, how, and where; `chosen` is the precision that `latency.fastest` takes."""

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

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`, without `choice`, which repeats it."""
        data = asdict(self)
        del data["choice"]
        return data


def choose_precision(
    package: ModelPackage,
    *,
    image: ImageSource | None = None,
    caption: str | None = None,
    runs: int = 50,
    warmup: int = 10,
    threads: int | None = None,
    spin: bool = False,
    provider: str = "cpu",
    cache: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> ChoiceReport:
    """Measure every graph of a package in turns; nothing is saved (see `saved_precision.save_precision`).

    Args:
        package: the model package.
        image: see `inputs.make_feed`.
        caption: see `inputs.make_feed`.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: see `session.create_session`.
        spin: see `session.create_session`.
        provider: see `opening.open_graphs`.
        cache: see `opening.open_graphs`.
        progress: called after every round, warm-up included.

    Raises:
        InputError: a number out of range, or a picture or caption that cannot be used.
        MlicError: whatever keeps a graph from running.
    """
    require_positive(runs=runs, warmup=warmup)
    manifest = package.manifest
    notes = busy_notes()
    feed = package_feed(package, image=image, caption=caption)
    sessions = open_graphs(package, provider=provider, threads=threads, spin=spin, cache=cache)
    latency = measure_latency(sessions, feed, runs=runs, warmup=warmup, progress=progress)
    chosen = fastest(latency)
    used = sessions[chosen]
    machine = describe_machine()
    return ChoiceReport(
        model=manifest.title,
        chosen=chosen,
        provider=used.provider,
        threads=used.threads,
        spin=spin,
        warmup=warmup,
        runs=runs,
        picture=feed.picture,
        caption=feed.caption,
        tokens=feed.tokens,
        machine=machine,
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
