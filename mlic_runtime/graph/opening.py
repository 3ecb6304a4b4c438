"""A graph of a model package, opened on a provider and in a precision that are given or chosen here."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlic_runtime.base.machine import has_dot_product
from mlic_runtime.errors import ManifestError, PackageError
from mlic_runtime.package.graph_safety import check_graph
from mlic_runtime.package.manifest import FULL_RANGE, REDUCED_RANGE, Manifest
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.providers.names import AUTO

from .cache import CacheEntry, find_entry
from .saved_precision import find_saved_precision, find_saved_provider
from .session import GraphSession, check_agreement, create_session, first_that_loads


@dataclass(frozen=True)
class OpenedGraph:
    """A graph of a model package, ready to run.

    Attributes:
        session: the loaded graph.
        precision: one of `manifest.PRECISIONS`.
        reason: why this precision, for people: "as asked", "chosen by mlic-bench --choose", "recommended by the
            package" or "the package's first"; and if the processor wanted another graph than that, which and why.
        origin: where the graph came from, for people: "from the cache", "added to the cache", or why it is not there.
        provider_reason: why this provider, for people; see `session.first_that_loads`.
    """

    session: GraphSession
    precision: str
    reason: str
    origin: str
    provider_reason: str = "as asked"


def open_graph(
    package: ModelPackage,
    *,
    provider: str = "cpu",
    precision: str = AUTO,
    threads: int | None = None,
    spin: bool = False,
    cache: bool = True,
) -> OpenedGraph:
    """Load a graph of a package.

    The precision "auto" means, for the provider that loads: the one that `mlic-bench --choose` found best on this
    machine, else the one that the package recommends, else that of the first graph in the manifest. The provider "auto"
    means the one that `mlic-bench --choose` found best on this machine, else the best one that loads.

    Of two int8 graphs the one for this processor is taken, whichever of them was asked for, recommended or first: see
    `for_processor`. What `mlic-bench --choose` found on this processor stays.

    Args:
        package: the model package.
        provider: see `session.create_session`.
        precision: one of `manifest.PRECISIONS`, or "auto".
        threads: see `session.create_session`.
        spin: see `session.create_session`.
        cache: use the optimised graph in the user's cache folder, or put it there; see `cache`. The package is read and
            verified in any case.

    Raises:
        ManifestError: the package has no graph of that precision, or none that is right on this processor.
        PackageError: the package is damaged, or the inputs or outputs of the graph are wrong.
        ProviderError: the provider is unknown or not available here.
        ChoiceError: the precision is "auto", and the file of chosen precisions cannot be used.
        ValueError: `threads` is below 1.
    """
    source = _Source(package, cache)

    def load(name: str) -> OpenedGraph:
        if precision == AUTO:
            chosen, reason = _choose_precision(package.manifest, name)
        else:
            chosen, reason = for_processor(package.manifest, precision, "as asked")
        session, origin = source.open(chosen, provider=name, threads=threads, spin=spin)
        return OpenedGraph(session, chosen, reason, origin)

    preferred = find_saved_provider(package.manifest) if provider == AUTO else None
    opened, provider_reason = first_that_loads(provider, load, preferred)
    return replace(opened, provider_reason=provider_reason)


def open_graphs(
    package: ModelPackage,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    spin: bool = False,
    cache: bool = True,
) -> dict[str, GraphSession]:
    """Load every graph of a package that is for this processor, on one provider.

    Returns:
        {precision: session} in the order of the manifest; one int8 graph of two, see `for_processor`.

    Args:
        package: the model package.
        provider: see `session.create_session`; "auto" means the best one that loads all graphs.
        threads: see `session.create_session`.
        spin: see `session.create_session`.
        cache: see `open_graph`.

    Raises:
        MlicError: see `open_graph`.
    """
    source = _Source(package, cache)

    def load(name: str) -> dict[str, GraphSession]:
        return {
            precision: source.open(precision, provider=name, threads=threads, spin=spin)[0]
            for precision in precisions_here(package.manifest)
        }

    return first_that_loads(provider, load)[0]


def runnable_precisions(manifest: Manifest) -> tuple[str, ...]:
    """Return the precisions of a package that are right on this processor, even where another is faster."""
    return tuple(name for name in manifest.precisions if name != FULL_RANGE or has_dot_product())


def precisions_here(manifest: Manifest) -> tuple[str, ...]:
    """Return the precisions of a package that are right and worth running on this processor, in the manifest's order.

    Raises:
        ManifestError: there are none.
    """
    precisions = runnable_precisions(manifest)
    if FULL_RANGE in precisions:
        precisions = tuple(name for name in precisions if name != REDUCED_RANGE)
    if not precisions:
        raise ManifestError(_wrong_here(manifest))
    return precisions


def for_processor(manifest: Manifest, precision: str, reason: str) -> tuple[str, str]:
    """Return the precision to run here instead of `precision`, and the reason, which then says so.

    A package may have two int8 graphs: with 8-bit weights for processors with VNNI or the ARM dot product, and with
    7-bit ones for others, where sums of 8-bit products overflow. Each stands in for the other where that one is right.

    Raises:
        ManifestError: the graph is not right on this processor, and the package has none to stand in.
    """
    if precision in (FULL_RANGE, REDUCED_RANGE) and precision in manifest.precisions:
        pair = [name for name in precisions_here(manifest) if name in (FULL_RANGE, REDUCED_RANGE)]
        if not pair:
            raise ManifestError(_wrong_here(manifest))
        if pair[0] != precision:
            fact = "has VNNI or the ARM dot product" if has_dot_product() else "has no VNNI or ARM dot product"
            return pair[0], f"{reason}: {precision}, as this processor {fact}"
    elif precision == REDUCED_RANGE and FULL_RANGE in manifest.precisions:
        return for_processor(manifest, FULL_RANGE, reason)
    return precision, reason


class _Source:
    """The graphs of a package; each is read once, however many providers are tried."""

    def __init__(self, package: ModelPackage, cache: bool) -> None:
        self._package, self._cache = package, cache
        self._read = functools.cache(package.read)

    def open(self, precision: str, *, provider: str, threads: int | None, spin: bool) -> tuple[GraphSession, str]:
        """Return a session, and where its graph came from."""
        manifest = self._package.manifest
        name = manifest.graph_name(precision)
        graph = self._read(name)  # even with a cache, which would hide that the package is damaged
        create = functools.partial(create_session, provider=provider, threads=threads, spin=spin)
        entry = find_entry(manifest.files[name].sha256, provider) if self._cache else None
        session = None if entry is None else _load_entry(entry, graph, create)
        if session is None:
            check_graph(graph, str(self._package.path / name))
            session = create(graph) if entry is None else _fill_entry(entry, graph, create)
        check_agreement(session, manifest)
        return session, "without the cache" if entry is None else entry.note


def _load_entry(entry: CacheEntry, graph: bytes, create: Callable[..., GraphSession]) -> GraphSession | None:
    # The entry was made from a graph that passed `check_graph`.
    optimised = entry.read()
    if optimised is None:
        return None
    try:
        return create(graph, optimised=optimised)
    except PackageError as error:  # such as a file that was truncated by a full disk before it was hashed
        entry.discard(str(error))
        return None


def _fill_entry(entry: CacheEntry, graph: bytes, create: Callable[..., GraphSession]) -> GraphSession:
    try:
        with entry.saving() as path:
            return create(graph, save_to=path)
    except PackageError:
        return create(graph)  # the graph may be good, and the disk full


def _wrong_here(manifest: Manifest) -> str:
    others = [name for name in manifest.precisions if name != FULL_RANGE]
    return (
        f"the {FULL_RANGE} graph of model package {manifest.title} needs a processor with VNNI or the ARM dot product; "
        f"this one has neither, and its results would be wrong; take another graph "
        f"({', '.join(others) or 'it has none'}) or export the package with {REDUCED_RANGE}"
    )


def _choose_precision(manifest: Manifest, provider: str) -> tuple[str, str]:
    """Return the precision that "auto" means, and the reason."""
    chosen = find_saved_precision(manifest, provider)
    if chosen is not None:
        return chosen, "chosen by mlic-bench --choose"
    here = precisions_here(manifest)
    stand_ins = (FULL_RANGE, REDUCED_RANGE)
    recommended = manifest.recommended.get(provider)
    if recommended in here or (recommended in stand_ins and any(name in here for name in stand_ins)):
        return for_processor(manifest, str(recommended), "recommended by the package")
    return here[0], "the package's first"
