"""PyTorch as a backend of `mlic-bench`, found by the entry points `pytorch` and `torch-compile`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.errors import InputError
from mlic_runtime.package.model_package import ModelPackage
from mlic_train.errors import CheckpointError
from mlic_train.runs.find import released_run
from mlic_train.runs.folder import checkpoint_digest, load_trained


class PyTorchBackend:
    """The model of a package in PyTorch eager mode on the CPU.

    Args:
        package: the measured package; its `checkpoint_sha256` names the checkpoint that it was exported from.
        threads: intra-op threads, as many as the runtime's.
        checkpoint: a run folder; None: the released checkpoint of the package's name.
        precision: not used; the checkpoint has one precision.

    Raises:
        CheckpointError: there is no checkpoint, or the package was not exported from it.
    """

    name = "pytorch eager"

    def __init__(self, package: ModelPackage, threads: int, checkpoint: str | None, precision: str) -> None:
        folder = released_run(package.manifest.name) if checkpoint is None else Path(checkpoint)
        if folder is None:
            raise CheckpointError(f"no released checkpoint of {package.manifest.name}: give --checkpoint RUN_FOLDER")
        trained = load_trained(folder)
        if checkpoint_digest(folder) != package.manifest.provenance.get("checkpoint_sha256"):
            raise CheckpointError(
                f"the package was not exported from {folder}: give --checkpoint with the run folder that it came from"
            )
        self.version = str(torch.__version__)
        self._model: Callable[..., torch.Tensor] = trained.model
        torch.set_num_threads(threads)

    def run(
        self,
        pixels: npt.NDArray[np.uint8],
        input_ids: npt.NDArray[np.int64] | None,
        attention_mask: npt.NDArray[np.int64] | None,
    ) -> npt.NDArray[np.float32]:
        """Return logits float32 (B, L) for `pixels` uint8 (B, H, W, 3), ids and mask int64 (B, T)."""
        arrays = [array for array in (pixels, input_ids, attention_mask) if array is not None]
        with torch.inference_mode():
            logits = self._model(*(torch.from_numpy(array) for array in arrays))
        return logits.numpy()


class TorchCompileBackend(PyTorchBackend):
    """The model of a package compiled by `torch.compile`, with PyTorch's default backend and mode.

    It is compiled here for one picture; another shape is compiled when it first runs, in the warm-up.

    Raises:
        CheckpointError: see `PyTorchBackend`.
        InputError: it cannot be compiled on this machine, for example without a C++ compiler.
    """

    name = "torch.compile"
    only_if_asked = "compiling takes minutes"

    def __init__(self, package: ModelPackage, threads: int, checkpoint: str | None, precision: str) -> None:
        super().__init__(package, threads, checkpoint, precision)
        self._model = torch.compile(self._model)
        inputs = package_inputs(package)
        try:
            self.run(*inputs.arrays)
        except Exception as error:  # dynamo's, inductor's and the compiler's errors have no common base class
            cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise InputError(f"torch.compile failed ({cause}): it needs a C++ compiler such as g++") from error
