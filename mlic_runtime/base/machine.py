"""The machine: CPUs and cores that this process may use, its processor, peak memory, and how busy it is."""

import contextlib
import functools
import itertools
import math
import os
import platform
import sys
from collections.abc import Hashable
from pathlib import Path

BUSY = 0.5  # load average for each CPU above which a machine counts as busy

# What Linux (/proc/cpuinfo: flags, Features) and macOS call it.
_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "avx512vnni", "asimddp"}
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CPU_ROOT = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")
_OWN_CGROUP = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")


def available_cpus() -> int:
    """Return how many logical CPUs this process may keep busy: by its affinity, and by the limit of its container.

    For work that waits for memory or files much of the time, such as decoding pictures.
    """
    affinity = _affinity()
    return _limited((os.cpu_count() or 1) if affinity is None else len(affinity))


def available_cores() -> int:
    """Return how many physical cores this process may keep busy; as `available_cpus`, the threads of a core as one.

    For running a graph: two threads of one core share its arithmetic units, so the second adds little but waiting.
    Where the system does not say which CPUs share a core, each counts as one.
    """
    affinity = _affinity()
    return available_cpus() if affinity is None else _limited(len({_core_of(cpu) for cpu in affinity}))


def processor_facts() -> dict[str, str]:
    """Return what Linux says of the first processor in /proc/cpuinfo, {key: value}; nothing on other systems."""
    return _key_values(_CPUINFO)


def processor_name() -> str:
    """Return the model name of the CPU; `platform.processor()` is empty or vague on Linux."""
    return processor_facts().get("model name") or platform.processor() or platform.machine() or "unknown"


@functools.cache
def has_dot_product() -> bool:
    """Return whether the processor adds products of bytes in 32 bits: VNNI on x86, the dot product on ARM.

    Without it, x86 processors add two products in 16 bits, which overflow if int8 weights use all 8 bits. False where
    the system does not say (Windows), because graphs with 7 bits are right everywhere.
    """
    if sys.platform == "darwin":
        return bool(_DOT_PRODUCT & set(_sysctl("machdep.cpu.leaf7_features").lower().split())) or (
            _sysctl("hw.optional.arm.FEAT_DotProd") == "1"
        )
    facts = processor_facts()
    return bool(_DOT_PRODUCT & set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split()))


def machine_facts() -> dict[str, str | int]:
    """Return what a reader of any measurement must know about where it was made."""
    return {
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpus": available_cpus(),
        "python": platform.python_version(),
    }


def peak_bytes() -> int | None:
    """Return the peak of this process's resident memory in bytes; None where the system does not say.

    On Linux it is VmHWM, because `ru_maxrss` starts with the peak of the process that forked this one.
    """
    peak = _key_values(_STATUS).get("VmHWM")
    if peak is not None:
        return int(peak.split()[0]) * 1024  # the file says kB and means KiB
    if sys.platform == "darwin":
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None


def busy_notes() -> tuple[str, ...]:
    """Return a warning if other work keeps this machine busy, else nothing; to be called before measuring.

    Busy is a load average of the last minute above BUSY for each CPU that this process may use. Windows has no load
    average. In a container the load is that of the whole machine, so this warns too often rather than too seldom.
    """
    if not hasattr(os, "getloadavg"):
        return ()
    load, cpus = os.getloadavg()[0], available_cpus()
    if load <= BUSY * cpus:
        return ()
    return (
        f"the machine is busy: load average {load:.1f} in the last minute, more than {BUSY} for each of "
        f"{cpus} CPUs; trust ratios rather than times",
    )


def _affinity() -> set[int] | None:
    # Python knows no affinity on macOS and Windows.
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _limited(count: int) -> int:
    return max(1, min([count, *(math.ceil(limit) for limit in _cgroup_limits())]))


def _core_of(cpu: int) -> Hashable:
    """Return a key that two logical CPUs share if and only if they are threads of one core."""
    topology = _CPU_ROOT / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the name before Linux 5.3
        siblings = _cpu_list(_read(topology / name))
        if cpu in siblings:
            return siblings
    package, core = (_read(topology / name) for name in ("physical_package_id", "core_id"))
    # -1 means unknown; numbers of cores begin anew in every package.
    return (package, core) if package.isdecimal() and core.isdecimal() else cpu


def _cpu_list(text: str) -> frozenset[int]:
    """Return the numbers of "0-1,8"; none if the text is malformed."""
    cpus: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            return frozenset()
        cpus.update(range(int(ends[0]), int(ends[-1]) + 1))
    return frozenset(cpus)


def _cgroup_limits() -> list[float]:
    """Return the limits, in CPUs, of this process's cgroup and those above it (v2), or of the container (v1)."""
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


def _sysctl(name: str) -> str:
    """Return what macOS says under a name; nothing if it knows none such."""
    import subprocess  # a start should not wait for it elsewhere

    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _key_values(path: Path) -> dict[str, str]:
    """Return the lines "key: value" of a file of /proc, up to the first blank line; nothing if it is missing."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in itertools.takewhile(str.strip, lines):
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    return found
