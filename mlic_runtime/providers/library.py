"""The installed package `onnxruntime`, and the libraries of its providers.

The runtime imports `onnxruntime` from here only, so a broken installation is a `ProviderError` that says what to do.
"""

import contextlib
import ctypes
import io
import sys
from pathlib import Path

from mlic_runtime.base.text import error_line
from mlic_runtime.errors import ProviderError

from . import openvino
from .distributions import conflict, installed_distributions
from .names import PROVIDERS

try:
    import onnxruntime
except ImportError as error:
    raise ProviderError(
        f"cannot import onnxruntime ({error_line(error)}): "
        + (conflict() or ("install it again" if installed_distributions() else "'pip install onnxruntime'"))
    ) from error
if not hasattr(onnxruntime, "InferenceSession"):
    # Two distributions were installed, and one removed: only some files of the folder that both shared are left.
    names = " ".join(installed_distributions()) or "onnxruntime"
    raise ProviderError(
        "the installed onnxruntime is not complete: "
        + (conflict() or f"'pip install --force-reinstall --no-deps {names}'")
    )

__all__ = ["available_providers", "load_libraries", "onnxruntime"]

_CUDA_PROVIDERS = ("cuda", "tensorrt")


def available_providers() -> list[str]:
    """Return what can be requested here, by the names in the values of `names.PROVIDERS`; the device may be missing."""
    offered: list[str] = onnxruntime.get_available_providers()
    return [*offered, *([PROVIDERS["openvino"]] if openvino.is_installed() else [])]


def load_libraries(provider: str) -> str | None:
    """Load the libraries of a provider that ONNX Runtime keeps in files of their own.

    It would load them itself, but then write to standard error why it cannot, and not find CUDA and cuDNN from PyPI.

    Args:
        provider: a key of `names.PROVIDERS`; nothing is done for those that are inside ONNX Runtime.

    Returns:
        Why they do not load, on one line; None if they do, or if only ONNX Runtime can know.
    """
    folder = Path(onnxruntime.__file__).parent / "capi"
    # On Windows, ONNX Runtime finds libraries through PATH, and Python does not. So only ONNX Runtime can try there.
    library = folder / f"libonnxruntime_providers_{provider}.so"
    if provider not in _CUDA_PROVIDERS or not (library.is_file() or sys.platform == "win32"):
        return None
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; what is needed fails below
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
