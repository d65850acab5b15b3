"""Duplicates of images: exact copies by content, near-duplicates by perceptual hash and brightness, or by small versions of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import MINIATURE_EDGE
from segpipe.data.splits import SPLITS
from segpipe.progress import track
from segpipe.words import listed

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_PAIRS = 1 << 21
"""Pairs that are compared at a time: 16 MiB of hashes, whatever the number of images."""
_MAX_ASPECT_RATIO = 1.05
"""Largest difference of the proportions of two versions of one image: cropping a few pixels changes those of a small image so much."""

_MINIATURE_TOLERANCE = 0.12
"""The largest difference in brightness, as a share, at which miniatures are compared: a tenth more light changes it so much."""
_COMPARED_MINIATURES = 12
"""Miniatures that one image is compared with: those with the most similar spectra."""
_FREQUENCIES = 12
"""Frequencies of a spectrum in each direction: up to waves that are a twelfth of the edge long."""
_MAX_SHIFT = MINIATURE_EDGE // 8
"""The largest shift between two miniatures, in their pixels."""
_ZOOMS = (1.03, 1.06)
"""Factors by which a miniature is also enlarged: an image that was cropped by 2 to 8 % of its edge shows the rest so much larger."""
_MIN_CORRELATION_FOR_ZOOM = 0.8
"""Miniatures of an image and of a crop of it correlate at least so much before either is enlarged."""
_BLUR_SIGMA = 1.0
"""Standard deviation, in pixels of a miniature, of the blur that removes the effect of shifts by parts of such a pixel."""


class Lookalike(NamedTuple):
    """The image of another split that an image resembles most."""

    path: str
    split: str
    distance: int
    """Bits of 64 in which the perceptual hashes differ."""
    others: int
    """The number of further images that it resembles."""
    likeness: float | None
    """Correlation of the miniatures; None if the images were found by their hashes."""


def exact_copies(manifest: pd.DataFrame) -> pd.DataFrame:
    """Find the rows that have exactly the same image as another row.

    Args:
        manifest: the manifest.

    Returns:
        A frame with the index of the manifest. copies: the paths of the other rows, in words; copy: the first of them, None if there is
        none; copy_splits: the number of splits that have the image; mask_versions: the number of its different masks; copies_beside: the
        number of other rows with the same split and the same mask.
    """
    import pandas as pd

    columns = ["copies", "copy", "copy_splits", "mask_versions", "copies_beside"]
    rows: dict[Any, list[Any]] = {label: ["", None, 1, 1, 0] for label in manifest.index}
    duplicated = manifest[manifest["sha256"].notna() & manifest["sha256"].duplicated(keep=False)]
    for _, copies in duplicated.groupby("sha256"):
        for label, row in copies.iterrows():
            others = copies.drop(index=label)
            same = (others["split"] == row["split"]) & (others["mask_sha256"] == row["mask_sha256"])
            splits, masks = copies["split"].nunique(), copies["mask_sha256"].nunique()
            rows[label] = [listed(others["path"], at_most=3), others["path"].iloc[0], splits, masks, int(same.sum())]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def near_duplicates(manifest: pd.DataFrame, distance: int, tolerance: float, likeness: float) -> dict[Any, Lookalike]:
    """Find images that resemble an image of another split.

    Two images resemble each other if their perceptual hashes differ in at most `distance` bits, the means and standard deviations of
    every channel by at most `tolerance`, and their proportions (of volumes also the slices) are the same. This distinguishes images that
    only have the same composition, such as cells in the middle of a slide in two stains, or the same organ of two people.

    Images that were shifted, cropped or brightened have other hashes. They resemble each other if their miniatures, at the best shift
    and zoom, correlate by at least `likeness` (`compare_miniatures`); each image is compared with those of the most similar spectra,
    which do not depend on shifts. Blank images, whose hashes are all equal, and exact copies, which have a check of their own, are left
    out. Hashes and spectra of all pairs across splits are compared, in blocks (xor and popcount, a product of matrices).

    Args:
        manifest: the manifest.
        distance: bits of the 64-bit hashes.
        tolerance: as a share of the brighter image's brightest channel (mean + deviation).
        likeness: the smallest correlation of miniatures.

    Returns:
        The most similar image, by the index label of the row: the later one in the order train, val, test, so that a pair is reported
        once.
    """
    rows = manifest[manifest["phash"].notna() & manifest["error"].isna()]
    rows = rows[[bool(np.max(stds) > 0) for stds in rows["std"]]]
    width = max((len(mean) for mean in rows["mean"]), default=0)
    lookalikes: dict[Any, Lookalike] = {}
    for index, later_split in enumerate(SPLITS[1:], start=1):
        late, early = rows[rows["split"] == later_split], rows[rows["split"].isin(SPLITS[:index])]
        if len(late) and len(early):
            features = _Features.of(late, width), _Features.of(early, width)
            lookalikes |= _compare(*features, distance, tolerance, likeness)
    return lookalikes


class _Features(NamedTuple):
    """The features of n images by which they are compared."""

    labels: list[Any]
    """Labels of the rows, from the index of the manifest."""
    paths: npt.NDArray[np.object_]
    splits: npt.NDArray[np.object_]
    contents: npt.NDArray[np.object_]
    """SHA-256 of the files."""
    hashes: npt.NDArray[np.uint64]
    kinds: npt.NDArray[np.int64]
    """(n, 2): channels and slices, which must be equal."""
    aspects: npt.NDArray[np.float64]
    """Logarithm of height / width."""
    moments: npt.NDArray[np.float64]
    """(n, 2 x channels), means and standard deviations."""
    scale: npt.NDArray[np.float64]
    """(n,), mean plus deviation of the brightest channel."""
    miniatures: npt.NDArray[np.object_]
    spectra: npt.NDArray[np.float32]
    """(n, frequencies): rows whose products are correlations."""

    @classmethod
    def of(cls, rows: pd.DataFrame, width: int) -> _Features:
        means, stds = (_stack(rows[name], width) for name in ("mean", "std"))
        return cls(
            labels=list(rows.index),
            paths=rows["path"].to_numpy(object),
            splits=rows["split"].to_numpy(object),
            contents=rows["sha256"].to_numpy(object),
            hashes=np.array([int(text, 16) for text in rows["phash"]], np.uint64),
            kinds=np.stack([rows["channels"].to_numpy(int), rows["depth"].fillna(0).to_numpy(int)], axis=1),
            aspects=np.log(rows["height"].to_numpy(float) / rows["width"].to_numpy(float)),
            moments=np.concatenate([means, stds], axis=1),
            scale=(np.abs(means) + stds).max(axis=1),
            miniatures=rows["miniature"].to_numpy(object),
            spectra=np.stack([_spectrum(miniature) for miniature in rows["miniature"]]),
        )


def _stack(lists: pd.Series, width: int) -> npt.NDArray[np.float64]:
    """Stack lists of different lengths to (n, width), filled up with 0."""
    table = np.zeros((len(lists), width))
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return table


def _compare(
    late: _Features, early: _Features, distance: int, tolerance: float, likeness: float
) -> dict[Any, Lookalike]:
    step = max(1, _BLOCK_PAIRS // len(early.hashes))
    starts = range(0, len(late.hashes), step)
    lookalikes: dict[Any, Lookalike] = {}
    for start in track(starts, "comparing images", len(starts)):
        block = slice(start, start + step)
        bits = np.bitwise_count(late.hashes[block, None] ^ early.hashes)
        pairs: dict[tuple[int, int], float | None] = {}
        for a, b in _compatible_pairs(late, early, start, bits <= distance, tolerance):
            pairs[a, b] = None
        candidates = _most_similar(late.spectra[block] @ early.spectra.T)
        for a, b in _compatible_pairs(late, early, start, candidates, _MINIATURE_TOLERANCE):
            if (a, b) not in pairs:
                correlation = compare_miniatures(late.miniatures[a], early.miniatures[b], likeness)
                if correlation >= likeness:
                    pairs[a, b] = correlation
        for a, b in sorted(pairs, key=lambda pair: (pair[0], bits[pair[0] - start, pair[1]], pair[1])):
            label = late.labels[a]
            if first := lookalikes.get(label):
                lookalikes[label] = first._replace(others=first.others + 1)
            else:
                different_bits = int(bits[a - start, b])
                lookalikes[label] = Lookalike(early.paths[b], early.splits[b], different_bits, 0, pairs[a, b])
    return lookalikes


def _most_similar(products: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return the `_COMPARED_MINIATURES` largest values of each row, as a mask."""
    if products.shape[1] <= _COMPARED_MINIATURES:
        return np.ones(products.shape, bool)
    columns = np.argpartition(products, -_COMPARED_MINIATURES, axis=1)[:, -_COMPARED_MINIATURES:]
    largest = np.zeros(products.shape, bool)
    np.put_along_axis(largest, columns, True, axis=1)
    return largest


def compare_miniatures(one: bytes, other: bytes, enough: float = 1.0) -> float:
    """Compute the normalised cross-correlation of two miniatures at their best shift, at most an eighth of their edge.

    If it is less than `enough`, but not much less, each miniature is also enlarged by each of `_ZOOMS`. Then the distance from 1 counts
    twice, since one of so many attempts fits by chance.

    Args:
        one: a miniature (`segpipe.data.images.statistics.miniature`).
        other: another miniature.
        enough: a correlation at which no zoom is tried.

    Returns:
        The correlation, at most 1; 0 for blank miniatures.
    """
    best = _correlate(_detail(one), _detail(other))
    if not _MIN_CORRELATION_FOR_ZOOM <= best < enough:
        return best
    pairs = [(_detail(one, zoom), _detail(other)) for zoom in _ZOOMS]
    pairs += [(_detail(one), _detail(other, zoom)) for zoom in _ZOOMS]
    return max(best, *(2 * _correlate(*pair) - 1 for pair in pairs))


def _correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Find the largest correlation of the middle of each miniature with the other one, between whole pixels by a parabola."""
    import cv2

    inner = slice(_MAX_SHIFT, MINIATURE_EDGE - _MAX_SHIFT)
    peaks = [
        _peak(cv2.matchTemplate(whole, part[inner, inner], cv2.TM_CCOEFF_NORMED))
        for whole, part in ((one, other), (other, one))
        if part[inner, inner].std() > 0
    ]
    return min(1.0, max(peaks, default=0.0))


def _peak(surface: np.ndarray) -> float:
    """Return the largest value of a surface (H, W), interpolated between the points of the grid along both axes."""
    y, x = np.unravel_index(surface.argmax(), surface.shape)
    top = float(surface[y, x])
    rise = 0.0
    for line, index in ((surface[:, x], y), (surface[y], x)):
        if 0 < index < len(line) - 1:
            before, after = float(line[index - 1]), float(line[index + 1])
            curvature = before - 2 * top + after
            rise -= (before - after) ** 2 / (8 * curvature) if curvature < 0 else 0.0
    return top + rise


@functools.lru_cache(4096)
def _detail(miniature: bytes, zoom: float = 1.0) -> np.ndarray:
    """Return a miniature without its low frequencies, (48, 48), float32; enlarged around its middle.

    Low frequencies (the light of a microscope, a cell in the middle) are similar in all images of one kind.
    """
    import cv2

    plane = np.frombuffer(miniature, np.uint8).reshape(MINIATURE_EDGE, MINIATURE_EDGE).astype(np.float32)
    if zoom != 1:
        centre = (MINIATURE_EDGE - 1) / 2
        transform = np.array([[zoom, 0, centre * (1 - zoom)], [0, zoom, centre * (1 - zoom)]])
        plane = cv2.warpAffine(plane, transform, plane.shape, flags=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(plane, (0, 0), _BLUR_SIGMA) - cv2.GaussianBlur(plane, (0, 0), MINIATURE_EDGE / 8)


def _spectrum(miniature: bytes) -> npt.NDArray[np.float32]:
    """Return the amplitudes of the lowest frequencies of a miniature's detail, with mean 0 and length 1; 0 for a blank one."""
    window = np.hanning(MINIATURE_EDGE)
    waves = np.fft.rfft2(_detail(miniature) * np.outer(window, window))[:, :_FREQUENCIES]
    row = np.sqrt(np.abs(np.concatenate([waves[:_FREQUENCIES], waves[1 - _FREQUENCIES :]]))).ravel()
    row -= row.mean()
    return (row / max(float(np.linalg.norm(row)), 1e-9)).astype(np.float32)


def _compatible_pairs(
    late: _Features, early: _Features, start: int, candidates: npt.NDArray[np.bool_], tolerance: float
) -> Iterator[tuple[int, int]]:
    """Yield the candidate pairs that are not copies, and agree in brightness and shape.

    Args:
        late: the images of the later split.
        early: the images of the earlier splits.
        start: the index in `late` of the first row of `candidates`.
        candidates: (rows, images of `early`), the pairs to check.
        tolerance: of brightness.

    Yields:
        (index in `late`, index in `early`).
    """
    a, b = np.nonzero(candidates)
    a += start
    compatible = (late.contents[a] != early.contents[b]) & _agree(late, a, early, b, tolerance)
    yield from zip(a[compatible].tolist(), b[compatible].tolist(), strict=True)


def _agree(late: _Features, a: np.ndarray, early: _Features, b: np.ndarray, tolerance: float) -> npt.NDArray[np.bool_]:
    """Return whether brightness and shape of pairs agree. a, b: (pairs,), indices in `late` and `early`."""
    difference = np.abs(late.moments[a] - early.moments[b]).max(axis=1)
    bright: np.ndarray = difference <= tolerance * np.maximum(late.scale[a], early.scale[b])
    shaped = np.abs(late.aspects[a] - early.aspects[b]) <= np.log(_MAX_ASPECT_RATIO)
    return bright & shaped & (late.kinds[a] == early.kinds[b]).all(axis=1)
