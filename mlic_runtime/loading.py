"""Opening a graph of a model package: which provider, and which precision on it."""

import functools
from dataclasses import dataclass

from .choices import find_choice
from .manifest import Manifest
from .package import ModelPackage
from .providers import AUTO
from .session import GraphSession, check_agreement, create_session, first_that_loads


@dataclass(frozen=True)
class OpenedGraph:
    """A graph of a model package, ready to run.

    Attributes:
        session: the loaded graph.
        precision: one of `manifest.PRECISIONS`.
        reason: what decided the precision, for people: "as asked", "chosen by mlic-bench --choose", "recommended by the
            package" or "the package's first".
    """

    session: GraphSession
    precision: str
    reason: str


def open_graph(
    package: ModelPackage,
    *,
    provider: str = "cpu",
    precision: str = AUTO,
    threads: int | None = None,
    spin: bool = False,
) -> OpenedGraph:
    """Load a graph of a package.

    The precision "auto" is, for the provider that loads: what `mlic-bench --choose` found best on this machine, else
    what the package recommends for it, else the first graph that the manifest lists.

    Args:
        package: the model package.
        provider: see `session.create_session`.
        precision: one of `manifest.PRECISIONS`, or "auto".
        threads: see `session.create_session`.
        spin: see `session.create_session`.

    Raises:
        ManifestError: the package has no graph of that precision.
        PackageError: the package is damaged, or the graph does not keep the contract.
        ProviderError: the provider is unknown or not available here.
        ChoiceError: the precision is "auto", and the file of chosen precisions cannot be used.
        ValueError: `threads` is below 1.
    """
    read = functools.cache(package.read_graph)  # "auto" providers mostly agree on the precision

    def load(name: str) -> OpenedGraph:
        chosen, reason = (precision, "as asked") if precision != AUTO else _resolve(package.manifest, name)
        session = create_session(read(chosen), provider=name, threads=threads, spin=spin)
        check_agreement(session, package.manifest)
        return OpenedGraph(session, chosen, reason)

    return first_that_loads(provider, load)


def open_graphs(
    package: ModelPackage, *, provider: str = "cpu", threads: int | None = None, spin: bool = False
) -> dict[str, GraphSession]:
    """Load every graph of a package, {precision: session} in the order of the manifest, on one provider.

    Args:
        package: the model package.
        provider: see `session.create_session`; "auto" means the best one that loads all graphs.
        threads: see `session.create_session`.
        spin: see `session.create_session`.

    Raises:
        MlicError: see `open_graph`.
    """
    read = functools.cache(package.read_graph)

    def load(name: str) -> dict[str, GraphSession]:
        sessions = {}
        for precision in package.manifest.precisions:
            session = create_session(read(precision), provider=name, threads=threads, spin=spin)
            check_agreement(session, package.manifest)
            sessions[precision] = session
        return sessions

    return first_that_loads(provider, load)


def _resolve(manifest: Manifest, provider: str) -> tuple[str, str]:
    """(precision, reason) of "auto"."""
    chosen = find_choice(manifest, provider)
    if chosen is not None:
        return chosen, "chosen by mlic-bench --choose"
    if provider in manifest.recommended:
        return manifest.recommended[provider], "recommended by the package"
    return manifest.precisions[0], "the package's first"
