"""The latency of a package's graphs on this machine, by execution provider."""

from collections.abc import Callable, Mapping

from mlic_runtime.base.machine import has_dot_product
from mlic_runtime.bench.inputs import make_inputs
from mlic_runtime.bench.latency import fastest, measure_latency
from mlic_runtime.errors import ProviderError
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.manifest import FULL_RANGE, LatencySpec
from mlic_runtime.providers.library import available_providers
from mlic_runtime.providers.names import AUTO, candidates
from mlic_train.runs.folder import TrainedModel

_RUNS = 100

Latency = Mapping[str, Mapping[str, LatencySpec]]
"""{precision: {provider: latency}}"""


def measure_graphs(trained: TrainedModel, graphs: Mapping[str, bytes], log: Callable[[str], None]) -> Latency:
    """Measure graphs {precision: ONNX file} in turns, one picture with a caption at a time, on every provider here.

    A graph that is not for this processor is left out, which `log` is told.
    """
    if FULL_RANGE in graphs and not has_dot_product():
        log(f"the latency of {FULL_RANGE} is not measured: this processor has no VNNI or ARM dot product")
        graphs = {precision: graph for precision, graph in graphs.items() if precision != FULL_RANGE}
    model = trained.config.model
    inputs = make_inputs(model.image_spec, model.text_spec, trained.tokenizer)
    latency: dict[str, dict[str, LatencySpec]] = {precision: {} for precision in graphs}
    for provider in candidates(AUTO, available_providers()):
        try:
            sessions = {name: create_session(graph, provider=provider) for name, graph in graphs.items()}
        except ProviderError:
            continue  # the library is there, and its hardware is not
        for precision, measured in measure_latency(sessions, inputs, runs=_RUNS).items():
            latency[precision][provider] = measured
    return latency


def recommend(latency: Latency) -> dict[str, str]:
    """Return {provider: the precision to run there}, by `mlic_runtime.bench.latency.fastest`."""
    return {provider: fastest(measured) for provider, measured in by_provider(latency).items()}


def by_provider(latency: Latency) -> dict[str, dict[str, LatencySpec]]:
    """Return {provider: {precision: latency}}."""
    latencies: dict[str, dict[str, LatencySpec]] = {}
    for precision, measured in latency.items():
        for provider, spec in measured.items():
            latencies.setdefault(provider, {})[precision] = spec
    return latencies
