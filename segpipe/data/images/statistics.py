"""Numbers of decoded images and masks, (H, W), (D, H, W) or with channels at the end, in one pass and little memory.

Everything works in bands of rows, so that beside an array no second one of its size is made. Values are counted, never sorted.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

WINDOW_PERCENTILES = (0.5, 99.5)
"""The percentiles that the intensity window lies between."""

MINIATURE_EDGE = 48
"""Edge of the small pictures by which near-duplicates are told, in pixels."""

_BAND = 1 << 18
_SHARPNESS_PIXELS = 1 << 16
_STRIPS = 4
_PHASH_EDGE = 32


def histogram(values: np.ndarray, channel: int = 0) -> npt.NDArray[np.int64]:
    """How many pixels have each value, by value: (H, W) or (H, W, C), uint8 or uint16 -> (256,) or (65536,)."""
    levels = 256 if values.dtype == np.uint8 else 65536
    total = np.zeros(levels, np.int64)
    for band in row_bands(values, max(_BAND, 4 * levels)):  # far below 2**24, up to where float32 counts are exact
        total += cv2.calcHist([band], [channel], None, [levels], [0, levels]).ravel().astype(np.int64)
    return total


def row_bands(image: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Views of consecutive rows of an image (H, W, ...), with about that many pixels each."""
    rows = max(1, pixels // max(1, image.shape[1]))
    return [image[top : top + rows] for top in range(0, image.shape[0], rows)]


def flat_rows(array: np.ndarray, labels: bool = False) -> np.ndarray:
    """An image (H, W, C) or (D, H, W, C), or `labels` without C, as one slice: the slices stand below each other."""
    return array if array.ndim == (2 if labels else 3) else array.reshape(-1, *array.shape[2:])


def moments(image: np.ndarray) -> npt.NDArray[np.float64]:
    """Mean, standard deviation, and the two percentiles of `WINDOW` (inverted CDF) of each channel: (H, W, C) -> (4, C)."""
    if image.dtype == np.float32:
        return np.array([_float_moments(image[:, :, channel]) for channel in range(image.shape[2])]).T
    counts = np.stack([histogram(image, channel) for channel in range(image.shape[2])])
    values = np.arange(counts.shape[1], dtype=np.float64)
    size = image.shape[0] * image.shape[1]
    mean = counts @ values / size
    std = np.sqrt([of @ (values - middle) ** 2 / size for of, middle in zip(counts, mean, strict=True)])
    low, high = np.transpose([np.searchsorted(below, _percentiles(size)) for below in np.cumsum(counts, axis=1)])
    return np.stack([mean, std, low, high])


def _percentiles(size: int) -> npt.NDArray[np.float64]:
    """How many of `size` values lie at or below the limits of `WINDOW`."""
    return np.array(WINDOW_PERCENTILES) / 100 * size


def _float_moments(plane: np.ndarray) -> tuple[float, float, float, float]:
    parts = row_bands(plane, _BAND)
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / plane.size
    square = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts) / plane.size
    low, high = _float_window(parts, plane.size)
    return mean, float(np.sqrt(square)), low, high


def _float_window(parts: list[np.ndarray], size: int) -> tuple[float, float]:
    """The percentiles of `WINDOW` of `size` float32 values that come in parts, exactly, without sorting and without a copy of them.

    By radix: the bits of floats, their signs turned, are whole numbers of the same order. These are counted by their upper 16 bits,
    and where the value that is looked for lies, by the lower 16.
    """
    ranks = _percentiles(size)
    below = np.cumsum(sum(np.bincount(_ordered(part) >> 16, minlength=1 << 16) for part in parts))
    found = []
    for upper, rank in zip(np.searchsorted(below, ranks), ranks, strict=True):
        lower = np.zeros(1 << 16, np.int64)
        for part in parts:
            keys = _ordered(part)
            lower += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=1 << 16)
        place = np.searchsorted(np.cumsum(lower), rank - (below[upper - 1] if upper else 0))
        key = np.uint32(upper << 16 | place)
        bits = key ^ np.uint32(0x80000000) if key >> 31 else ~key
        found.append(float(bits.view(np.float32)) + 0.0)  # no negative zero
    return found[0], found[1]


def _ordered(part: np.ndarray) -> npt.NDArray[np.uint32]:
    """float32 values, flattened, as whole numbers of the same order."""
    bits = np.ascontiguousarray(part).reshape(-1).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H, W): luma of three channels, in their dtype; of another number their mean, float32."""
    if image.shape[2] == 1:
        return image[:, :, 0]
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image.mean(axis=2, dtype=np.float32)  # type: ignore[no-any-return]


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the grey image, whose window (percentiles of `WINDOW`) is scaled to 0..1; 0 for a flat image.

    image: (H, W, C), or (D, H, W, C), whose slices are taken one by one. Of a large image, strips spread evenly over it are
    measured, 65,536 pixels together.
    """
    if min(image.shape[-3:-1]) < 3:
        return 0.0
    strips = [grey(np.ascontiguousarray(strip)) for strip in _strips(image)]
    values = np.concatenate([strip.ravel() for strip in strips])
    low, high = moments(values[None, :, None])[2:, 0]
    if high <= low:
        return 0.0
    depth = cv2.CV_16S if image.dtype == np.uint8 and image.shape[-1] in (1, 3) else cv2.CV_32F
    edges = np.concatenate([cv2.Laplacian(strip, depth)[1:-1, 1:-1].ravel() for strip in strips])
    return float(cv2.meanStdDev(edges)[1][0, 0] ** 2 / (high - low) ** 2)


def _strips(image: np.ndarray) -> list[np.ndarray]:
    slices = [image] if image.ndim == 3 else list(image[:: -(-len(image) // _STRIPS)])
    height, width = image.shape[-3:-1]
    pixels = _SHARPNESS_PIXELS // len(slices)
    if height * width <= pixels:
        return slices
    rows = min(height, max(3, pixels // (_STRIPS * width)))
    tops = np.linspace(0, height - rows, _STRIPS).astype(int)
    return [single[top : top + rows] for single in slices for top in tops]


def reduce_to_grey(image: np.ndarray) -> np.ndarray:
    """The grey picture that is hashed and kept small, (H, W): an image, or a volume's middle slice, no edge far above 128 pixels."""
    small = image if image.ndim == 3 else image[len(image) // 2]
    small = small if small.shape[2] <= 4 else np.ascontiguousarray(small[:, :, :3])
    if min(small.shape[:2]) >= 4 * _PHASH_EDGE:
        small = _halved(small)
    plane = grey(small)
    while min(plane.shape) >= 4 * _PHASH_EDGE:
        plane = _halved(plane)
    return plane.astype(np.float32)


def perceptual_hash(plane: np.ndarray) -> str:
    """64 bits, as 16 hexadecimal digits, that nearly the same pictures (`reduced`) nearly share.

    The picture at 32 x 32 pixels, its 8 x 8 lowest frequencies (DCT), and for each whether it lies above their median: what
    `imagehash.phash` computes, which takes longer over it than decoding a small image does (N. Krawetz, "Looks Like It", 2011).
    """
    waves = cv2.dct(cv2.resize(plane, (_PHASH_EDGE, _PHASH_EDGE), interpolation=cv2.INTER_AREA))[:8, :8]
    waves[0] *= np.sqrt(2)  # OpenCV's transform is orthonormal
    waves[:, 0] *= np.sqrt(2)
    middle = np.partition(waves.ravel(), (31, 32))[31:33].mean()
    return np.packbits(waves > middle).tobytes().hex()


def miniature(plane: np.ndarray) -> bytes:
    """A picture (`reduced`) at `MINIATURE` x `MINIATURE` pixels, its darkest 0 and its brightest 255, row by row."""
    small = cv2.resize(plane, (MINIATURE_EDGE, MINIATURE_EDGE), interpolation=cv2.INTER_AREA)
    return cv2.normalize(small, None, 0, 255, cv2.NORM_MINMAX).round().astype(np.uint8).tobytes()  # type: ignore[call-overload,no-any-return]


def _halved(image: np.ndarray) -> np.ndarray:
    """Half as high and wide, an odd last row or column left out; a few such steps are far cheaper than a large one."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    half = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return half.reshape(height, width, *image.shape[2:])
