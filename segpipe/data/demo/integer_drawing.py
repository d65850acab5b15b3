"""Drawing by integer arithmetic alone: what is drawn is the same on every machine, under every version of every library."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.int64]

EDGE = 1024
"""A shape is where its quadratic form is below this: 0 at the centre, `EDGE` on the outline."""

# cos and sin of k * 22.5 degrees, times 256
TURNS = tuple(zip(
    (256, 237, 181, 98, 0, -98, -181, -237, -256, -237, -181, -98, 0, 98, 181, 237),
    (0, 98, 181, 237, 256, 237, 181, 98, 0, -98, -181, -237, -256, -237, -181, -98),
    strict=True,
))


def _transmission() -> Plane:
    """Share of light, times 2**20, that passes an optical density of k/64: powers of 63/64 by integers."""
    table = [1 << 20]
    while len(table) < 512:
        table.append(table[-1] * 63 // 64)
    return np.array(table, np.int64)


TRANSMISSION = _transmission()


class RandomIntegers:
    """Random integers from raw PCG64 words; one stream for each (seed, place)."""

    def __init__(self, seed: int, *place: int) -> None:
        self._bits = np.random.PCG64([seed, *place])

    def between(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def chance(self, percent: int) -> bool:
        """True in so many cases of a hundred."""
        return self.between(0, 99) < percent

    def octets(self, *shape: int) -> Plane:
        """Numbers from 0 to 255."""
        count = int(np.prod(shape))
        words = self._bits.random_raw((count + 7) // 8).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape).astype(np.int64)

    def bell(self, *shape: int) -> Plane:
        """Nearly normal numbers of mean 0 and standard deviation 148: sums of four octets."""
        return self.octets(4, *shape).sum(0) - 510


def smooth(dice: RandomIntegers, height: int, width: int, spacing: int) -> Plane:
    """A random landscape from -128 to 127 with hills about `spacing` pixels apart: octets on a grid, joined linearly, softened."""
    grid = dice.octets(height // spacing + 3, width // spacing + 3) - 128
    y, x = np.arange(height, dtype=np.int64), np.arange(width, dtype=np.int64)
    top, left, fy, fx = y // spacing, x // spacing, (y % spacing)[:, None], x % spacing
    upper = grid[top][:, left] * (spacing - fx) + grid[top][:, left + 1] * fx
    lower = grid[top + 1][:, left] * (spacing - fx) + grid[top + 1][:, left + 1] * fx
    landscape = np.floor_divide(upper * (spacing - fy) + lower * fy, spacing * spacing, dtype=np.int64)
    return blur(landscape, spacing // 4)


def blur(plane: Plane, radius: int) -> Plane:
    """Mean over a square of edge 2 * radius + 1, borders repeated, over the first two axes."""
    if radius == 0:
        return plane
    size = 2 * radius + 1
    for axis in (0, 1):
        pad = [(radius + 1, radius) if a == axis else (0, 0) for a in range(plane.ndim)]
        total = np.cumsum(np.pad(plane, pad, mode="edge"), axis)
        last = np.moveaxis(total, axis, 0)
        plane = np.moveaxis((last[size:] - last[:-size] + size // 2) // size, 0, axis)
    return plane


@dataclass(frozen=True)
class Blob:
    """An ellipse: centre, half axes in pixels, and the place of its direction in `TURNS`."""

    y: int
    x: int
    long: int
    short: int
    turn: int

    def form(self, height: int, width: int, wobble: Plane, amount: int) -> tuple[tuple[slice, slice], Plane]:
        """The window of the image that the shape can touch, and its form there; `amount` (0..256) of wobble bends the outline."""
        reach = self.long * 3 // 2 + 2
        rows = slice(max(0, self.y - reach), max(0, min(height, self.y + reach + 1)))
        columns = slice(max(0, self.x - reach), max(0, min(width, self.x + reach + 1)))
        dy = np.arange(rows.start, rows.stop, dtype=np.int64)[:, None] - self.y
        dx = np.arange(columns.start, columns.stop, dtype=np.int64) - self.x
        cos, sin = TURNS[self.turn]
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        form = (u * u * EDGE) // (self.long**2 << 16) + (v * v * EDGE) // (self.short**2 << 16)
        return (rows, columns), form + (wobble[rows, columns] * amount * 8 >> 8)


def stored_png(array: npt.NDArray[np.uint8]) -> bytes:
    """(H, W) or (H, W, 3) RGB, uint8, as a PNG without compression, so that its bytes follow from its pixels alone.

    RFC 2083 (PNG), RFC 1950 and 1951 (zlib streams of stored blocks).
    """
    height, width = array.shape[:2]
    lines = np.zeros((height, 1 + array[0].size), np.uint8)  # each line begins with its filter type, 0: none
    lines[:, 1:] = array.reshape(height, -1)
    raw = lines.tobytes()
    blocks = [raw[start : start + 65535] for start in range(0, len(raw), 65535)]
    deflated = b"".join(
        struct.pack("<BHH", index == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for index, block in enumerate(blocks)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if array.ndim == 3 else 0, 0, 0, 0)
    stream = b"\x78\x01" + deflated + struct.pack(">I", zlib.adler32(raw))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
