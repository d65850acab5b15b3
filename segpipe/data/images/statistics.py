"""Statistics of decoded images and masks: (H, W), (D, H, W), or with channels at the end.

Everything works in bands of rows, so that no second array of the size of the image is needed. Values are counted, never sorted.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.drift.image_statistics import histogram_moments, plane_moments

WINDOW_PERCENTILES = (0.5, 99.5)
"""The percentiles that bound the intensity window of an image."""

MINIATURE_EDGE = 48
"""Edge, in pixels, of the small pictures by which near-duplicates are found."""

_BAND_PIXELS = 1 << 18
_SHARPNESS_PIXELS = 1 << 16
_STRIPS = 4
_PHASH_EDGE = 32


def histogram(values: np.ndarray, channel: int = 0) -> npt.NDArray[np.int64]:
    """Count the pixels with each value.

    Args:
        values: (H, W) or (H, W, C), uint8 or uint16.
        channel: the channel to count.

    Returns:
        (256,) for uint8 or (65536,) for uint16: the number of pixels with each value.
    """
    levels = 256 if values.dtype == np.uint8 else 65536
    total = np.zeros(levels, np.int64)
    for band in row_bands(values, max(_BAND_PIXELS, 4 * levels)):  # far below 2**24, the limit of exact float32 counts
        total += cv2.calcHist([band], [channel], None, [levels], [0, levels]).ravel().astype(np.int64)
    return total


def row_bands(image: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Cut an image (H, W, ...) into bands of consecutive rows, views with about `pixels` pixels each."""
    rows = max(1, pixels // max(1, image.shape[1]))
    return [image[top : top + rows] for top in range(0, image.shape[0], rows)]


def flat_rows(array: np.ndarray, labels: bool = False) -> np.ndarray:
    """Return a volume as one image, its slices below each other: (D, H, W, C) -> (D * H, W, C). With `labels` there is no C."""
    return array if array.ndim == (2 if labels else 3) else array.reshape(-1, *array.shape[2:])


def moments(image: np.ndarray) -> npt.NDArray[np.float64]:
    """Compute the mean, the standard deviation and the two percentiles of `WINDOW_PERCENTILES` (inverted CDF) of each channel.

    Args:
        image: (H, W, C), uint8, uint16 or float32.

    Returns:
        (4, C).
    """
    if image.dtype == np.float32:
        return np.array([_float_moments(image[:, :, channel]) for channel in range(image.shape[2])]).T
    counts = np.stack([histogram(image, channel) for channel in range(image.shape[2])])
    size = image.shape[0] * image.shape[1]
    mean, std = histogram_moments(counts)
    low, high = np.transpose([np.searchsorted(cdf, _window_ranks(size)) for cdf in np.cumsum(counts, axis=1)])
    return np.stack([mean, std, low, high])


def value_range(image: np.ndarray) -> tuple[list[float], list[float], bool]:
    """Find the smallest and the largest value of each channel, and whether all values are whole numbers.

    Args:
        image: (H, W, C), uint8, uint16 or float32.

    Returns:
        C smallest values, C largest values, and True if no value has a fraction.
    """
    bands = row_bands(image, _BAND_PIXELS)
    smallest = np.min([band.min((0, 1)) for band in bands], axis=0)
    largest = np.max([band.max((0, 1)) for band in bands], axis=0)
    whole = image.dtype.kind in "bui" or all(bool((band == np.rint(band)).all()) for band in bands)
    return smallest.astype(float).tolist(), largest.astype(float).tolist(), whole


def _window_ranks(size: int) -> npt.NDArray[np.float64]:
    """Return how many of `size` values are at or below each limit of `WINDOW_PERCENTILES`."""
    return np.array(WINDOW_PERCENTILES) / 100 * size


def _float_moments(plane: np.ndarray) -> tuple[float, float, float, float]:
    mean, std = plane_moments(plane)
    low, high = _float_window(row_bands(plane, _BAND_PIXELS), plane.size)
    return mean, std, low, high


def _float_window(parts: list[np.ndarray], size: int) -> tuple[float, float]:
    """Compute the percentiles of `WINDOW_PERCENTILES` of float32 values exactly, without sorting and without a copy of the values.

    This is a radix selection. `_sort_keys` maps floats to integers of the same order. They are counted by their upper 16 bits first,
    and then, where the percentile lies, by their lower 16 bits.

    Args:
        parts: the values.
        size: the number of values in all parts.
    """
    ranks = _window_ranks(size)
    cdf = np.cumsum(sum(np.bincount(_sort_keys(part) >> 16, minlength=1 << 16) for part in parts))
    window = []
    for upper, rank in zip(np.searchsorted(cdf, ranks), ranks, strict=True):
        counts = np.zeros(1 << 16, np.int64)
        for part in parts:
            keys = _sort_keys(part)
            counts += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=1 << 16)
        lower = np.searchsorted(np.cumsum(counts), rank - (cdf[upper - 1] if upper else 0))
        key = np.uint32(upper << 16 | lower)
        bits = key ^ np.uint32(0x80000000) if key >> 31 else ~key
        window.append(float(bits.view(np.float32)) + 0.0)  # adding 0 turns a negative zero into zero
    return window[0], window[1]


def _sort_keys(part: np.ndarray) -> npt.NDArray[np.uint32]:
    """Map float32 values, flattened, to integers that have the same order."""
    bits = np.ascontiguousarray(part).reshape(-1).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def grey(image: np.ndarray) -> np.ndarray:
    """Convert an image (H, W, C) to grey (H, W): the luma of three channels, in their dtype, or the mean of any other number, float32."""
    if image.shape[2] == 1:
        return image[:, :, 0]
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image.mean(axis=2, dtype=np.float32)


def sharpness(image: np.ndarray) -> float:
    """Measure sharpness: the variance of the Laplacian of the grey image, whose intensity window is scaled to 0..1.

    Of a large image only strips spread evenly over it are measured, 65,536 pixels in total.

    Args:
        image: (H, W, C), or (D, H, W, C), whose slices are measured one by one.

    Returns:
        The sharpness; 0 for a constant image, and for one with fewer than three rows or columns.
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
    """Reduce an image, or the middle slice of a volume, to a small grey picture (h, w), float32, for `perceptual_hash` and `miniature`.

    Its shorter edge is below 128 pixels.
    """
    small = image if image.ndim == 3 else image[len(image) // 2]
    small = small if small.shape[2] <= 4 else np.ascontiguousarray(small[:, :, :3])
    if min(small.shape[:2]) >= 4 * _PHASH_EDGE:
        small = _halved(small)
    plane = grey(small)
    while min(plane.shape) >= 4 * _PHASH_EDGE:
        plane = _halved(plane)
    return plane.astype(np.float32)


def perceptual_hash(plane: np.ndarray) -> str:
    """Compute a 64-bit hash that differs in few bits for similar pictures.

    The picture is scaled to 32 x 32 pixels. Each bit says whether one of the 8 x 8 lowest frequencies (DCT) is above their median. It
    is the hash of `imagehash.phash`, which takes longer than decoding a small image (N. Krawetz, "Looks Like It", 2011).

    Args:
        plane: (h, w), float32, a picture from `reduce_to_grey`.

    Returns:
        16 hexadecimal digits.
    """
    frequencies = cv2.dct(cv2.resize(plane, (_PHASH_EDGE, _PHASH_EDGE), interpolation=cv2.INTER_AREA))[:8, :8]
    frequencies[0] *= np.sqrt(2)  # OpenCV's DCT is orthonormal, that of imagehash is not
    frequencies[:, 0] *= np.sqrt(2)
    median = np.partition(frequencies.ravel(), (31, 32))[31:33].mean()
    return np.packbits(frequencies > median).tobytes().hex()


def miniature(plane: np.ndarray) -> bytes:
    """Scale a picture from `reduce_to_grey` to `MINIATURE_EDGE` x `MINIATURE_EDGE` pixels.

    Returns:
        The pixels row by row; the darkest is 0, the brightest 255.
    """
    small = cv2.resize(plane, (MINIATURE_EDGE, MINIATURE_EDGE), interpolation=cv2.INTER_AREA)
    return cv2.normalize(small, None, 0, 255, cv2.NORM_MINMAX).round().astype(np.uint8).tobytes()


def _halved(image: np.ndarray) -> np.ndarray:
    """Halve height and width, without an odd last row or column. Several such steps are far cheaper than one large step."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    half = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return half.reshape(height, width, *image.shape[2:])
