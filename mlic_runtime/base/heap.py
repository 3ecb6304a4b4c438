"""The C library's heap, for a process that lives for one prediction."""

import os
import sys
from typing import Final

# Of glibc's malloc.h and of the kernel's mman-common.h.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MADV_HUGEPAGE: Final = 14

_MEGABYTE: Final = 1 << 20
_LARGE_PAGE: Final = 2 * _MEGABYTE
_LARGEST: Final = 32 * _MEGABYTE  # glibc's own limit for what may come from the heap
_PAD: Final = 16 * _MEGABYTE
_SETTINGS: Final = ("GLIBC_TUNABLES", "LD_PRELOAD")


def use_large_pages() -> bool:
    """Let glibc's heap grow by large pages, and keep what is freed; for a process that ends soon.

    Loading the libraries and the graph touches 20,000 new pages of 4 KiB, and each costs a page fault. Large pages save
    13,000 of them: about a tenth of the CPU time of a prediction in a process of its own. All threads then share one
    heap, and freed memory stays in it, so this is not for processes that live.

    Returns:
        Whether it was done. It is not where the allocator is another one, where the environment already sets it up, or
        where the kernel has no large pages on request; nothing is lost then.
    """
    if not _is_glibc() or any(name in os.environ for name in _SETTINGS) or any(map(_is_malloc_setting, os.environ)):
        return False
    import ctypes  # here, because numpy loads it anyway, and nothing else does

    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, _PAD)
    # What is allocated and not touched takes no memory; it makes the heap grow at once, so that it can be advised on.
    size = _LARGEST - _MEGABYTE
    block = libc.malloc(size)
    end = libc.sbrk(0)
    libc.free(block)
    if not block or not end or not size <= end - block <= size + 2 * _PAD:
        return False  # the block is not at the end of the heap
    start = -(-block // _LARGE_PAGE) * _LARGE_PAGE
    length = (end - start) // _LARGE_PAGE * _LARGE_PAGE
    return bool(libc.madvise(start, length, _MADV_HUGEPAGE) == 0)


def _is_glibc() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # musl does not know the name
        return False


def _is_malloc_setting(name: str) -> bool:
    return name.startswith("MALLOC_")
