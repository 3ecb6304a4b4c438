"""Execution providers by their short names, how many CPUs this process may use, and what they are called."""

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from .errors import ProviderError

# short name -> ONNX Runtime's name
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
AUTO = "auto"
# What "auto" tries, best first. Without tensorrt: it compiles an engine for minutes, which must be asked for.
AUTO_ORDER = ("cuda", "directml", "coreml", "openvino", "xnnpack", "cpu")

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


def candidates(provider: str, offered: Sequence[str]) -> tuple[str, ...]:
    """The short names to try for a requested provider, best first.

    Args:
        provider: a key of PROVIDERS, or AUTO.
        offered: what `onnxruntime.get_available_providers()` returns.

    Returns:
        One name, or for AUTO those of AUTO_ORDER that are offered.

    Raises:
        ProviderError: an unknown name, or a provider that is not offered; the message lists what is.
    """
    here = [name for name, ort_name in PROVIDERS.items() if ort_name in offered]
    if provider == AUTO:
        return tuple(name for name in AUTO_ORDER if name in here)
    if provider not in PROVIDERS:
        raise ProviderError(f"unknown provider {provider!r}; available here: {', '.join([*here, AUTO])}")
    if provider not in here:
        raise ProviderError(
            f"the installed onnxruntime offers no provider {provider!r}; available here: {', '.join([*here, AUTO])}"
        )
    return (provider,)


def available_cpus() -> int:
    """How many CPUs this process may keep busy: by its affinity, and by the CPU limit of its container if any."""
    # macOS and Windows know no affinity that Python could ask for.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(limit) for limit in _cgroup_limits())]))


def processor_name() -> str:
    """The CPU's model name; `platform.processor()` is empty or vague on Linux."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name") and (name := line.partition(":")[2].strip()):
                    return name
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _cgroup_limits() -> list[float]:
    """The CPU limits, in CPUs, of this process's cgroup and those above it (v2), or of the container (v1)."""
    limits = []
    for folder in _cgroup_folders():
        fields = _read(folder / "cpu.max").split()  # "max 100000" or "150000 100000": microseconds per period
        if len(fields) == 2 and fields[0] != "max":
            limits.append(int(fields[0]) / int(fields[1]))
    quota, period = (_read(_CGROUP_ROOT / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota and period and int(quota) > 0:
        limits.append(int(quota) / int(period))
    return limits


def _cgroup_folders() -> list[Path]:
    path = next((line[3:] for line in _read(_OWN_CGROUP).splitlines() if line.startswith("0::/")), "/")
    folder = _CGROUP_ROOT / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(_CGROUP_ROOT))]


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
