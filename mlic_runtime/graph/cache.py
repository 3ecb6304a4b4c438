"""Graphs as ONNX Runtime optimised them, kept in the user's cache folder: the next process loads them ready-made.

An entry is the optimised graph in ONNX Runtime's own format, followed by what proves it: a magic number, its size, and
a SHA-256 of its bytes and of its name. The name says what it was made from (the SHA-256 of the verified graph) and what
for (version of ONNX Runtime, execution provider, processor). Whatever is wrong with an entry or its folder, it is as if
it were not there: the graph is optimised again, and the entry replaced. A file gets its name when it is complete, so
that any number of processes may share the folder.

Security: an optimised graph has operators of ONNX Runtime's own, so `graph_safety` cannot judge it. It is trusted
because nobody but this user (or root) could have written it: entry and folder belong to this user, nobody else may
write to them, and neither is a symbolic link. The SHA-256 finds damage and mix-ups, not malice: who can write here can
run code as this user anyway. The bytes that were hashed are the bytes that are loaded; nothing is opened twice.
"""

import contextlib
import hashlib
import os
import platform
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mlic_runtime.base.files import open_regular, reason
from mlic_runtime.limits import MAX_CACHE_BYTES, MAX_CACHE_ENTRIES
from mlic_runtime.providers.library import onnxruntime
from mlic_runtime.version import __version__

# Only the CPU's: its optimised graph is a function of what an entry's name says. Other providers compile for a device
# and a driver that the name does not say, cannot save what they compiled, or have caches of their own (TensorRT).
CACHED_PROVIDERS = frozenset(("cpu",))

ABANDONED_SECONDS = 3600.0  # a temporary file of that age belongs to a process that was killed

_SUFFIX, _TEMPORARY_SUFFIX = ".graph", ".tmp"
_MAGIC = b"mlicgc01"  # its digits are the version of the format
_TRAILER = struct.Struct("<8sQ32s")  # _MAGIC, bytes of the graph, SHA-256 of the graph and the entry's name
_CHUNK = 1024 * 1024
_CPUINFO = Path("/proc/cpuinfo")
# What Linux says there of a processor's kind, on x86, Arm and RISC-V; other lines change with its load.
_CPU_KIND = frozenset(
    (
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
        *("isa", "uarch"),
    )
)


class _UnusableError(Exception):
    """What is wrong with a file or folder."""


class CacheEntry:
    """The place of one optimised graph, there or not; made by `find_entry`.

    Attributes:
        path: of its file.
        note: what happened to it last, for people.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = "not in the cache"
        self._problem: str | None = None

    def read(self) -> bytes | None:
        """The optimised graph, in ONNX Runtime's format; None if there is none that can be trusted."""
        try:
            graph = self._read()
        except FileNotFoundError:
            return None
        except (OSError, _UnusableError) as error:
            self._problem = _why(error)
            self.note = f"not taken from the cache: {self._problem}"
            return None
        self.note = "from the cache"
        return graph

    @contextlib.contextmanager
    def saving(self) -> Iterator[Path | None]:
        """Fill the entry: give a file to save the optimised graph to, or None where there can be none.

        On leaving, what was saved becomes the entry, unless there was an exception. Failing to keep it is no error.
        """
        try:
            path = _temporary_file(self.path.parent)
        except (OSError, _UnusableError) as error:
            self.note = f"not kept in the cache: {_why(error)}"
            yield None
            return
        try:
            yield path
            try:
                self._keep(path)
            except OSError as error:
                self.note = f"not kept in the cache: {_why(error)}"
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def discard(self, why: str) -> None:
        """Remove the entry, which was whole, but of no use."""
        self._problem = why
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _read(self) -> bytes:
        _require_private(self.path.parent.lstat(), "its folder")
        with open_regular(self.path, follow_symlinks=False) as stream:
            status = os.fstat(stream.fileno())
            _require_private(status, "it")
            if status.st_size <= _TRAILER.size:
                raise _UnusableError("it is too short")
            graph = stream.read(status.st_size - _TRAILER.size)
            trailer = stream.read(_TRAILER.size + 1)
        if trailer != self._trailer(len(graph), hashlib.sha256(graph)):
            raise _UnusableError("it is damaged")
        return graph

    def _keep(self, path: Path) -> None:
        """Complete a saved graph and give it the entry's name; then make room.

        Without fsync: what a power failure leaves is found by its SHA-256, and costs no more than a missing entry.
        """
        digest, size = hashlib.sha256(), 0
        with path.open("r+b") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            stream.write(self._trailer(size, digest))
        path.replace(self.path)
        self.note = f"replaced in the cache: {self._problem}" if self._problem else "added to the cache"
        _make_room(self.path)

    def _trailer(self, size: int, digest: "hashlib._Hash") -> bytes:
        digest.update(self.path.name.encode())  # so that an entry under another name is not taken
        return _TRAILER.pack(_MAGIC, size, digest.digest())


def find_entry(sha256: str, provider: str) -> CacheEntry | None:
    """Where the optimised form of a graph is kept; None where it is not: another provider, or no cache folder.

    Args:
        sha256: of the graph that it is made from, as hexadecimal digits.
        provider: short name of the execution provider.
    """
    folder = cache_folder()
    if provider not in CACHED_PROVIDERS or folder is None:
        return None
    name = f"{sha256}-ort{onnxruntime.__version__}-{provider}-{_machine_digest()[:16]}{_SUFFIX}"
    return CacheEntry(folder / "graphs" / name)


def cache_folder() -> Path | None:
    """The user's cache folder for MLIC, there or not; None if the environment names no home."""
    windows, mac = sys.platform == "win32", sys.platform == "darwin"
    below = {"LOCALAPPDATA": "mlic/Cache"} if windows else {"HOME": "Library/Caches/mlic" if mac else ".cache/mlic"}
    for variable, path in {"XDG_CACHE_HOME": "mlic", **below}.items():
        home = os.environ.get(variable)
        if home and Path(home).is_absolute():  # a relative one must be ignored, by the XDG specification
            return Path(home, path)
    return None


def _machine_digest() -> str:
    """What an optimised graph depends on beside the graph, in one number.

    ONNX Runtime chooses layouts and fuses operators by the processor's instructions. mlic-runtime's version is part of
    it because `check_graph` looked at the graph in that version, which also set the options of the session.
    """
    about = [__version__, onnxruntime.get_build_info(), platform.machine(), *_processor()]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


def _processor() -> list[str]:
    """Name, stepping and features of the first processor."""
    lines = []
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not line.strip():
                    break  # the next processor
                if line.partition(":")[0].strip() in _CPU_KIND:
                    lines.append(line.strip())
    except OSError:
        pass
    return lines or [platform.processor()]


def _temporary_file(folder: Path) -> Path:
    """A new file (mode 0600) in the folder (0700 if it is new)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _require_private(folder.lstat(), "its folder")
    import tempfile  # here, because it costs 4 ms, and most processes find their graph

    descriptor, name = tempfile.mkstemp(suffix=_TEMPORARY_SUFFIX, dir=folder)
    os.close(descriptor)
    return Path(name)


def _require_private(status: os.stat_result, what: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _UnusableError(f"{what} is a symbolic link")
    if hasattr(os, "geteuid"):  # Windows keeps others out of the user's folder by its access lists
        if status.st_uid != os.geteuid():
            raise _UnusableError(f"{what} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _UnusableError(f"others may write to {what}")


def _make_room(newest: Path) -> None:
    """Remove the oldest entries over the limits, and what killed processes left."""
    entries = []
    for path in newest.parent.iterdir():
        with contextlib.suppress(OSError):  # another process may have removed it
            status = path.lstat()
            if path.suffix == _SUFFIX:
                entries.append((path != newest, -status.st_mtime, status.st_size, path))
            elif path.suffix == _TEMPORARY_SUFFIX and status.st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()
    total = 0
    for index, (old, _, size, path) in enumerate(sorted(entries)):
        total += size
        if old and (index >= MAX_CACHE_ENTRIES or total > MAX_CACHE_BYTES):
            with contextlib.suppress(OSError):
                path.unlink()


def _why(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)
