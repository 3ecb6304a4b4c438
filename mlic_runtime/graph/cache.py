"""Graphs as their library optimised them, kept in the user's cache folder, so that the next process loads them faster.

An entry is the optimised graph in the format of its library (ONNX Runtime or OpenVINO), followed by a trailer that
proves it: a magic number, its size, and a SHA-256 of its bytes and of its name. The name says what it was made from
(the SHA-256 of the verified graph) and what for (version of the library, execution provider, processor). If anything is
wrong with an entry or its folder, it is not used: the graph is optimised again, and the entry replaced. A file gets its
name when it is complete, so any number of processes may share the folder.

Security: an optimised graph has operators of the library's own, so `graph_safety` cannot judge it. It is trusted
because only this user (or root) could have written it: entry and folder belong to this user, nobody else may write to
them, and neither is a symbolic link. The SHA-256 finds damage and mix-ups, not malice: whoever can write here can run
code as this user anyway. The bytes that were hashed are the bytes that are loaded; nothing is opened twice.
"""

import contextlib
import hashlib
import os
import platform
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from mlic_runtime.base.files import open_regular, os_error_reason, temporary_folder
from mlic_runtime.base.machine import processor_facts
from mlic_runtime.base.user_folders import cache_folder
from mlic_runtime.limits import MAX_CACHE_BYTES, MAX_CACHE_ENTRIES
from mlic_runtime.providers.library import onnxruntime
from mlic_runtime.providers.openvino import library_version
from mlic_runtime.version import __version__

# Only a graph optimised for the CPU depends on nothing but what an entry's name says. Other providers compile for a
# device and a driver that the name does not say, cannot save what they compiled, or have their own cache (TensorRT).
# OpenVINO's own cache (CACHE_DIR) is not used: it proves neither its files' owner nor their content.
CACHED_PROVIDERS = frozenset(("cpu", "openvino"))

_SUFFIX = ".graph"
_MAGIC = b"mlicgc01"  # its digits are the version of the format
_TRAILER = struct.Struct("<8sQ32s")  # _MAGIC, bytes of the graph, SHA-256 of the graph and the entry's name
_CHUNK = 1024 * 1024
# Keys of /proc/cpuinfo that say a processor's kind, on x86, Arm and RISC-V; other values change with its load.
_CPU_KIND = frozenset(
    (
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
        *("isa", "uarch"),
    )
)


class _UnusableError(Exception):
    """A reason not to use a file or folder."""


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
        """Return the optimised graph, in the format of its library; None if there is none that can be trusted."""
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
        """Make a file to save the optimised graph to inside the block, or None where there can be none.

        What was saved becomes the entry, unless the block fails. Failing to keep it is no error.
        """
        with contextlib.ExitStack() as stack:
            path = None
            try:
                path = stack.enter_context(_temporary_file(self.path.parent))
            except (OSError, _UnusableError) as error:
                self.note = f"not kept in the cache: {_why(error)}"
            yield path
            if path is not None:
                try:
                    self._keep(path)
                except OSError as error:
                    self.note = f"not kept in the cache: {_why(error)}"

    def discard(self, why: str) -> None:
        """Remove the entry, which was undamaged, but cannot be used."""
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
        """Complete a saved graph and give it the entry's name; then remove old entries.

        Without fsync: damage by a power failure is found by the SHA-256, and costs no more than a missing entry.
        """
        digest, size = hashlib.sha256(), 0
        with path.open("r+b") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            stream.write(self._trailer(size, digest))
        path.replace(self.path)
        self.note = f"replaced in the cache: {self._problem}" if self._problem else "added to the cache"
        _remove_oldest(self.path)

    def _trailer(self, size: int, digest: "hashlib._Hash") -> bytes:
        digest.update(self.path.name.encode())  # so that an entry under another name is not used
        return _TRAILER.pack(_MAGIC, size, digest.digest())


def find_entry(sha256: str, provider: str) -> CacheEntry | None:
    """Return where the optimised form of a graph is kept; None for other providers, or without a cache folder.

    Args:
        sha256: of the graph that it is made from, as hexadecimal digits.
        provider: short name of the execution provider.

    Raises:
        ProviderError: the provider is "openvino", and its library does not load.
    """
    folder = cache_folder()
    if provider not in CACHED_PROVIDERS or folder is None:
        return None
    library = f"ov{library_version()}" if provider == "openvino" else f"ort{onnxruntime.__version__}"
    name = f"{sha256}-{library}-{provider}-{_machine_digest()[:16]}{_SUFFIX}"
    return CacheEntry(folder / "graphs" / name)


def _machine_digest() -> str:
    """Return a digest of what an optimised graph depends on beside the graph.

    ONNX Runtime chooses layouts and fuses operators by the processor's instructions. The version of mlic-runtime is
    part of it because `check_graph` looked at the graph in that version, which also set the options of the session.
    """
    facts = processor_facts()
    kind = [f"{key}: {value}" for key, value in facts.items() if key in _CPU_KIND] or [platform.processor()]
    about = [__version__, onnxruntime.get_build_info(), platform.machine(), *kind]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
    """Make an empty file (mode 0600) inside the folder (0700 if it is new); it is removed in the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _require_private(folder.lstat(), "its folder")
    with temporary_folder(folder / "entry") as temporary:  # one name for all entries: leftovers of any go with the next
        path = temporary / "graph"
        path.touch(mode=0o600)
        yield path


def _require_private(status: os.stat_result, what: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _UnusableError(f"{what} is a symbolic link")
    if hasattr(os, "geteuid"):  # Windows keeps others out of the user's folder by its access lists
        if status.st_uid != os.geteuid():
            raise _UnusableError(f"{what} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _UnusableError(f"others may write to {what}")


def _remove_oldest(newest: Path) -> None:
    """Remove the oldest entries until the limits are kept."""
    entries = []
    for path in newest.parent.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process may have removed it
            status = path.lstat()
            entries.append((path != newest, -status.st_mtime, status.st_size, path))
    total = 0
    for index, (old, _, size, path) in enumerate(sorted(entries)):
        total += size
        if old and (index >= MAX_CACHE_ENTRIES or total > MAX_CACHE_BYTES):
            with contextlib.suppress(OSError):
                path.unlink()


def _why(error: Exception) -> str:
    return os_error_reason(error) if isinstance(error, OSError) else str(error)
