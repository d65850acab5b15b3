"""Address space kept back for the moment when memory runs out.

Under a limit on it (`ulimit -v`, as batch systems set it), what a failed step took stays with the allocator: there is room for tensors
again, and none for what is asked of the system itself, such as oneDNN's kernels for parts of another size, or threads.
"""

from __future__ import annotations

import contextlib
import mmap
import sys

_PIECE = 128 << 20
"""Bytes. With so many of so much, an FPN's step (16 crops of 192 pixels on two cores) goes on in parts under a limit 7 or 12 % below the
address space that it takes; without, under neither."""
_PIECES = 4
_kept: list[mmap.mmap] = []


def reserve() -> None:
    """Where address space is limited, keep some back, of which no page is ever touched; as long as some is, no more."""
    if sys.platform == "win32" or _kept:
        return
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError):  # there is not even so much: less is kept
            for _ in range(_PIECES):
                _kept.append(mmap.mmap(-1, _PIECE))


def release_piece() -> None:
    """Make room with a piece of what was kept back, as long as there is one."""
    if _kept:
        _kept.pop().close()


def release_all() -> None:
    """After the last step: what follows has nothing to halve, and may have it all."""
    while _kept:
        release_piece()
