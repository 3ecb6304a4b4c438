"""What this machine is: CPUs and cores that this process may use, memory that it needed, how busy it is."""

import math
import os
import platform
import sys
from collections.abc import Hashable
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_CPU_ROOT = Path("/sys/devices/system/cpu")


def available_cpus() -> int:
    """How many logical CPUs this process may keep busy: by its affinity, and by the limit of its container if any.

    For work that waits for memory or files much of the time, such as decoding pictures.
    """
    affinity = _affinity()
    return _limited((os.cpu_count() or 1) if affinity is None else len(affinity))


def available_cores() -> int:
    """How many physical cores this process may keep busy; as `available_cpus`, with the threads of a core as one.

    For running a graph: two threads of one core share its arithmetic units, so the second adds little but waiting.
    Where the system does not say which CPUs share a core, each counts as one.
    """
    affinity = _affinity()
    return available_cpus() if affinity is None else _limited(len({_core_of(cpu) for cpu in affinity}))


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


def machine_facts() -> dict[str, str | int]:
    """What a reader of any measurement must know about where it was made."""
    return {
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpus": available_cpus(),
        "python": platform.python_version(),
    }


def _affinity() -> set[int] | None:
    # macOS and Windows know no affinity that Python could ask for.
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _limited(count: int) -> int:
    return max(1, min([count, *(math.ceil(limit) for limit in _cgroup_limits())]))


def _core_of(cpu: int) -> Hashable:
    """What is equal for two logical CPUs exactly if they are threads of one core."""
    topology = _CPU_ROOT / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the name before Linux 5.3
        siblings = _cpu_list(_read(topology / name))
        if cpu in siblings:
            return siblings
    package, core = (_read(topology / name) for name in ("physical_package_id", "core_id"))
    # -1 means unknown; numbers of cores begin anew in every package.
    return (package, core) if package.isdecimal() and core.isdecimal() else cpu


def _cpu_list(text: str) -> frozenset[int]:
    """The numbers of "0-1,8"; none if it is malformed."""
    cpus: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            return frozenset()
        cpus.update(range(int(ends[0]), int(ends[-1]) + 1))
    return frozenset(cpus)


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
    except (OSError, UnicodeDecodeError):
        return ""


_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """The most resident memory that this process has had so far, in bytes; None where the system does not say.

    On Linux it is VmHWM, for `ru_maxrss` starts with what the process that forked this one had.
    """
    try:
        with _STATUS.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024  # the file says kB and means KiB
    except OSError:
        pass
    if sys.platform == "darwin":
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None


BUSY = 0.5  # load average for each CPU above which a machine counts as busy


def busy_notes() -> tuple[str, ...]:
    """A warning if other work keeps this machine busy, to be asked for before measuring; else nothing.

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
