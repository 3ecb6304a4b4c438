"""ONNX Runtime as it is installed here: the package and the libraries of its providers, or what is wrong with them.

The runtime imports `onnxruntime` from here and nowhere else.
"""

import contextlib
import ctypes
import io
import sys
from pathlib import Path

from mlic_runtime.base.text import error_line
from mlic_runtime.errors import ProviderError

from .distributions import conflict, installed_distributions

try:
    import onnxruntime
except ImportError as error:
    raise ProviderError(
        f"cannot import onnxruntime ({error_line(error)}): "
        + (conflict() or ("install it again" if installed_distributions() else "'pip install onnxruntime'"))
    ) from error
if not hasattr(onnxruntime, "InferenceSession"):
    # Two distributions were installed, and one removed: of the folder that both shared some files are left.
    found = " ".join(installed_distributions()) or "onnxruntime"
    raise ProviderError(
        "the installed onnxruntime is not complete: "
        + (conflict() or f"'pip install --force-reinstall --no-deps {found}'")
    )

__all__ = ["load_libraries", "onnxruntime"]

_CUDA_PROVIDERS = ("cuda", "tensorrt")


def load_libraries(provider: str) -> str | None:
    """Load the libraries of a provider that ONNX Runtime keeps in files of their own.

    It would load them itself, but log on standard error why it cannot, and pass over CUDA and cuDNN from PyPI.

    Args:
        provider: a key of `providers.PROVIDERS`; nothing is done for those that are inside ONNX Runtime.

    Returns:
        Why they do not load, on one line; None if they do, or if only ONNX Runtime can tell.
    """
    folder = Path(onnxruntime.__file__).parent / "capi"
    # On Windows a library that is found through PATH loads for ONNX Runtime and not for Python: it must say itself.
    library = folder / f"libonnxruntime_providers_{provider}.so"
    if provider not in _CUDA_PROVIDERS or not (library.is_file() or sys.platform == "win32"):
        return None
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; what matters fails below
            onnxruntime.preload_dlls()
    if sys.platform == "win32":
        return None
    try:
        # As ONNX Runtime does: the second needs the symbols of the first.
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        reason = error_line(error)
        return reason + _what_it_needs(reason)
    return None


def _what_it_needs(reason: str) -> str:
    if "libcuda.so" in reason:
        return "; it belongs to NVIDIA's driver"
    if any(name in reason for name in ("libcu", "libnv")) and "libnvinfer" not in reason:
        return "; CUDA and cuDNN come with 'pip install onnxruntime-gpu[cuda,cudnn]'"
    return ""
