"""OpenVINO as a competitor in `mlic-bench`; found through the entry point `openvino`."""

from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.base.override import override
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import ModelPackage

from .benchmark import BenchBackend


class OpenVINOBackend(BenchBackend):
    """The same graph, byte for byte, as `--provider openvino` runs it.

    Args:
        package: the package that is measured.
        threads: threads of one inference.
        checkpoint: not used.
        precision: which graph of the package.

    Raises:
        ProviderError: OpenVINO is not installed, or cannot compile the graph.
        PackageError: the package is damaged.
    """

    name = "openvino"

    def __init__(self, package: ModelPackage, threads: int, checkpoint: str | None, precision: str) -> None:
        self._session = create_session(package.read_graph(precision), provider="openvino", threads=threads)
        self.version = self._session.library.removeprefix("openvino ")

    @override
    def run(self, pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None) -> Logits:
        return self._session.run(pixels, input_ids, attention_mask)
