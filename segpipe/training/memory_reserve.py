"""Address space held in reserve for the moment when memory runs out.

Under a limit on address space (`ulimit -v`, as batch systems set it), the memory of a failed step stays with the allocator. There is
then room for tensors again, but none for requests to the system itself, such as oneDNN's kernels for parts of another size, or threads.
"""

from __future__ import annotations

import contextlib
import mmap
import sys

_PIECE_BYTES = 128 << 20
_PIECES = 4
"""With four pieces of this size, an FPN's step (16 crops of 192 pixels on two cores) continues in parts under a limit 7 or 12 % below the
address space that it takes; without them, under neither."""
_reserve: list[mmap.mmap] = []


def reserve() -> None:
    """Reserve address space, if it is limited and none is reserved yet. No page of it is ever touched."""
    if sys.platform == "win32" or _reserve:
        return
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError):  # less is reserved if there is not enough
            for _ in range(_PIECES):
                _reserve.append(mmap.mmap(-1, _PIECE_BYTES))


def release_piece() -> None:
    """Release a piece of the reserve, if any is left."""
    if _reserve:
        _reserve.pop().close()


def release_all() -> None:
    """Release the reserve after the last step: what follows cannot be split, and may use it all."""
    while _reserve:
        release_piece()
