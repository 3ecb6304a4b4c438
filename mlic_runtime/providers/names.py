"""Execution providers by their short names."""

from collections.abc import Sequence

from mlic_runtime.errors import ProviderError

from .distributions import how_to_get

HOW_TO_GET = "pip install 'mlic-runtime[openvino]'"

# short name -> ONNX Runtime's name; OpenVINO is used through its own package, see `openvino`
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "openvino",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
AUTO = "auto"
# What "auto" tries, best first. Without tensorrt: it compiles an engine for minutes, so users have to choose it.
# OpenVINO comes last: it was not faster here (benchmarks/results/openvino-*). `mlic-bench --choose` finds where it is.
AUTO_ORDER = ("cuda", "directml", "coreml", "xnnpack", "cpu", "openvino")


def candidates(provider: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Return the short names to try for a requested provider, best first.

    Args:
        provider: a key of PROVIDERS, or AUTO.
        offered: names as in the values of PROVIDERS, from `library.available_providers`.

    Returns:
        One name, or for AUTO those of AUTO_ORDER that are offered.

    Raises:
        ProviderError: an unknown name, or a provider that is not offered; the message says what to do.
    """
    here = offered_names(offered)
    if provider == AUTO:
        return tuple(name for name in AUTO_ORDER if name in here)
    if provider not in PROVIDERS:
        raise ProviderError(f"unknown provider {provider!r}; available here: {', '.join(here)}")
    if provider == "openvino" and provider not in here:
        raise ProviderError(
            f"provider 'openvino' needs the package openvino, which is not installed: {HOW_TO_GET}; "
            f"available here: {', '.join(here)}"
        )
    if provider not in here:
        raise ProviderError(
            f"the installed onnxruntime offers no provider {provider!r}; available here: {', '.join(here)}; "
            f"{how_to_get(provider)}"
        )
    return (provider,)


def offered_names(offered: Sequence[str]) -> tuple[str, ...]:
    """Return the short names that can be requested here, AUTO at the end.

    Args:
        offered: names as in the values of PROVIDERS, from `library.available_providers`.
    """
    return (*(name for name, ort_name in PROVIDERS.items() if ort_name in offered), AUTO)
