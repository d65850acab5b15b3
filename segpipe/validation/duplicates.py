"""The same picture more than once: exact copies by content, near-duplicates by perceptual hash and brightness."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import MINIATURE_EDGE
from segpipe.data.splits import SPLITS
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 1 << 21
"""Pairs that are compared at a time: 16 MiB of hashes, whatever the number of images."""
_PROPORTIONS = 1.05
"""How much the proportions of two versions of one image may differ: what cropping a few pixels does to a small one."""

_FAR_TOLERANCE = 0.12
"""Up to which share of the brightness apart miniatures are compared: a tenth more light changes so much."""
_LOOKED_AT = 12
"""Miniatures that one image is compared with, those of the likest spectra."""
_WAVES = 12
"""Frequencies of a spectrum in each direction: waves as short as a twelfth of the edge."""
_REACH = MINIATURE_EDGE // 8
"""The largest shift between two miniatures, in their pixels."""
_ZOOMS = (1.03, 1.06)
"""How much larger a miniature is also looked at: a picture of which 2 to 8 % of the edge were cropped shows the rest so much larger."""
_WORTH_ZOOMING = 0.8
"""Miniatures of pictures of which one is a crop of the other correlate by so much before either is enlarged."""
_FINE = 1.0
"""Standard deviation, in pixels of a miniature, of the blur that takes out what shifts by parts of such a pixel change."""


class Lookalike(NamedTuple):
    """The image of another split that an image resembles most."""

    path: str
    split: str
    distance: int
    """Bits of 64 in which the perceptual hashes differ."""
    others: int
    """Further images, beside this one, that it resembles."""
    likeness: float | None
    """Correlation of the miniatures, where it was that by which they were told."""


def exact_copies(manifest: pd.DataFrame) -> pd.DataFrame:
    """What other rows show the very same image, by row.

    copies: their paths, in words; copy: the first of them (None: no other row); copy_splits, mask_versions: in how many splits and
    with how many masks the image stands; copies_beside: rows in the same split with the same mask.
    """
    import pandas as pd

    columns = ["copies", "copy", "copy_splits", "mask_versions", "copies_beside"]
    rows: dict[Any, list[Any]] = {place: ["", None, 1, 1, 0] for place in manifest.index}
    same = manifest[manifest["sha256"].notna() & manifest["sha256"].duplicated(keep=False)]
    for _, twins in same.groupby("sha256"):
        for place, row in twins.iterrows():
            others = twins.drop(index=place)
            beside = (others["split"] == row["split"]) & (others["mask_sha256"] == row["mask_sha256"])
            named = ", ".join(others["path"].iloc[:3]) + (" and more" if len(others) > 3 else "")
            splits, masks = twins["split"].nunique(), twins["mask_sha256"].nunique()
            rows[place] = [named, others["path"].iloc[0], splits, masks, int(beside.sum())]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def near_duplicates(manifest: pd.DataFrame, distance: int, tolerance: float, likeness: float) -> dict[Any, Lookalike]:
    """Images that resemble one of another split, by row: the later one of train, val, test, so that a pair is told once.

    Two images resemble each other where at most `distance` bits of their perceptual hashes differ, and the means and standard
    deviations of every channel by at most `tolerance`, as a share of the brighter image's brightest channel (mean + deviation),
    and the proportions are the same (in volumes the slices too). This keeps apart what merely has one composition, such as cells
    in the middle of a slide in two stains, or the same organ of two people. Where hashes and brightness are farther apart (shifted,
    cropped, brightened images), they resemble each other where their miniatures, at the best shift and zoom, correlate by `likeness`
    (see `compare_miniatures`); each image is held against those of the likest spectra, which know no shift. Blank images, whose hashes
    are all one, and exact copies, which are told as such, are left out.

    Hashes and spectra of all pairs across splits are compared, in blocks (xor and popcount, a product of matrices).
    """
    rows = manifest[manifest["phash"].notna() & manifest["error"].isna()]
    rows = rows[[bool(np.max(stds) > 0) for stds in rows["std"]]]
    width = max((len(mean) for mean in rows["mean"]), default=0)
    found: dict[Any, Lookalike] = {}
    for place, later in enumerate(SPLITS[1:], start=1):
        late, early = rows[rows["split"] == later], rows[rows["split"].isin(SPLITS[:place])]
        if len(late) and len(early):
            found |= _compare(_Looks.of(late, width), _Looks.of(early, width), distance, tolerance, likeness)
    return found


class _Looks(NamedTuple):
    """What n images look like. moments: (n, 2 x channels), means and deviations; scale: (n,), the brightest channel's sum of both."""

    places: list[Any]
    paths: npt.NDArray[np.object_]
    splits: npt.NDArray[np.object_]
    contents: npt.NDArray[np.object_]
    hashes: npt.NDArray[np.uint64]
    kinds: npt.NDArray[np.int64]
    """(n, 2): channels and slices, which must be equal."""
    aspects: npt.NDArray[np.float64]
    """Logarithm of height / width."""
    moments: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    miniatures: npt.NDArray[np.object_]
    spectra: npt.NDArray[np.float32]
    """(n, frequencies): rows whose products are correlations."""

    @classmethod
    def of(cls, rows: pd.DataFrame, width: int) -> _Looks:
        means, stds = (_stack(rows[name], width) for name in ("mean", "std"))
        return cls(
            places=list(rows.index),
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
    """(n, width): a list a row, 0 beyond its end."""
    table = np.zeros((len(lists), width))
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return table


def _compare(late: _Looks, early: _Looks, distance: int, tolerance: float, likeness: float) -> dict[Any, Lookalike]:
    step = max(1, _BLOCK // len(early.hashes))
    starts = range(0, len(late.hashes), step)
    found: dict[Any, Lookalike] = {}
    for start in track(starts, "comparing images", len(starts)):
        block = slice(start, start + step)
        bits = np.bitwise_count(late.hashes[block, None] ^ early.hashes)
        alike: dict[tuple[int, int], float | None] = {}
        for a, b in _agreeing(late, early, start, bits <= distance, tolerance):
            alike[a, b] = None
        for a, b in _agreeing(late, early, start, _likest(late.spectra[block] @ early.spectra.T), _FAR_TOLERANCE):
            if (a, b) not in alike:
                correlation = compare_miniatures(late.miniatures[a], early.miniatures[b], likeness)
                if correlation >= likeness:
                    alike[a, b] = correlation
        for a, b in sorted(alike, key=lambda pair: (pair[0], bits[pair[0] - start, pair[1]], pair[1])):
            place = late.places[a]
            if first := found.get(place):
                found[place] = first._replace(others=first.others + 1)
            else:
                apart = int(bits[a - start, b])
                found[place] = Lookalike(early.paths[b], early.splits[b], apart, 0, alike[a, b])
    return found


def _likest(products: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where the `_LOOKED_AT` largest values of each row stand."""
    if products.shape[1] <= _LOOKED_AT:
        return np.ones(products.shape, bool)
    places = np.argpartition(products, -_LOOKED_AT, axis=1)[:, -_LOOKED_AT:]
    largest = np.zeros(products.shape, bool)
    np.put_along_axis(largest, places, True, axis=1)
    return largest


def compare_miniatures(one: bytes, other: bytes, enough: float = 1.0) -> float:
    """The normalised cross-correlation, at most 1, of two miniatures at their best shift, an eighth of their edge at most. Where that is
    less than `enough`, but not far from it, also with one of them enlarged by one of `_ZOOMS`: then what lacks to 1 counts twice, since
    among so many tries one fits by chance. 0 for blank ones.
    """
    best = _correlate(_detail(one), _detail(other))
    if not _WORTH_ZOOMING <= best < enough:
        return best
    pairs = [(_detail(one, zoom), _detail(other)) for zoom in _ZOOMS]
    pairs += [(_detail(one), _detail(other, zoom)) for zoom in _ZOOMS]
    return max(best, *(2 * _correlate(*pair) - 1 for pair in pairs))


def _correlate(one: np.ndarray, other: np.ndarray) -> float:
    """The middle of each detail is looked for in the other; between whole pixels, the peak is that of a parabola."""
    import cv2

    inner = slice(_REACH, MINIATURE_EDGE - _REACH)
    found = [
        _peak(cv2.matchTemplate(whole, part[inner, inner], cv2.TM_CCOEFF_NORMED))
        for whole, part in ((one, other), (other, one))
        if part[inner, inner].std() > 0
    ]
    return min(1.0, max(found, default=0.0))


def _peak(surface: np.ndarray) -> float:
    """The largest value of a surface (H, W), and what it rises beyond that between the grid's points, along both axes."""
    y, x = np.unravel_index(surface.argmax(), surface.shape)
    top = float(surface[y, x])
    rise = 0.0
    for line, place in ((surface[:, x], y), (surface[y], x)):
        if 0 < place < len(line) - 1:
            before, after = float(line[place - 1]), float(line[place + 1])
            bend = before - 2 * top + after
            rise -= (before - after) ** 2 / (8 * bend) if bend < 0 else 0.0
    return top + rise


@functools.lru_cache(4096)
def _detail(miniature: bytes, zoom: float = 1.0) -> np.ndarray:
    """(48, 48), float32: a miniature, enlarged around its middle, without what is wide (the light of a microscope, a cell in the
    middle), which is alike in images of one kind."""
    import cv2

    plane = np.frombuffer(miniature, np.uint8).reshape(MINIATURE_EDGE, MINIATURE_EDGE).astype(np.float32)
    if zoom != 1:
        centre = (MINIATURE_EDGE - 1) / 2
        around = np.array([[zoom, 0, centre * (1 - zoom)], [0, zoom, centre * (1 - zoom)]])
        plane = cv2.warpAffine(plane, around, plane.shape, flags=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(plane, (0, 0), _FINE) - cv2.GaussianBlur(plane, (0, 0), MINIATURE_EDGE / 8)


def _spectrum(miniature: bytes) -> npt.NDArray[np.float32]:
    """Amplitudes of the lowest frequencies of a miniature's detail, in one row of mean 0 and length 1; 0 for a blank one."""
    fade = np.hanning(MINIATURE_EDGE)
    waves = np.fft.rfft2(_detail(miniature) * np.outer(fade, fade))[:, :_WAVES]
    row = np.sqrt(np.abs(np.concatenate([waves[:_WAVES], waves[1 - _WAVES :]]))).ravel()
    row -= row.mean()
    return (row / max(float(np.linalg.norm(row)), 1e-9)).astype(np.float32)


def _agreeing(
    late: _Looks, early: _Looks, start: int, wanted: npt.NDArray[np.bool_], tolerance: float
) -> Iterator[tuple[int, int]]:
    """The pairs (place in `late`, place in `early`) that are `wanted`, no copies, and agree in brightness and shape. wanted: one row
    for each of `late` from `start` on."""
    a, b = np.nonzero(wanted)
    a += start
    fit = (late.contents[a] != early.contents[b]) & _alike(late, a, early, b, tolerance)
    yield from zip(a[fit].tolist(), b[fit].tolist(), strict=True)


def _alike(late: _Looks, a: np.ndarray, early: _Looks, b: np.ndarray, tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether brightness and shape of pairs agree. a, b: (pairs,) places in `late` and `early`."""
    off = np.abs(late.moments[a] - early.moments[b]).max(axis=1)
    bright: np.ndarray = off <= tolerance * np.maximum(late.scale[a], early.scale[b])
    shaped = np.abs(late.aspects[a] - early.aspects[b]) <= np.log(_PROPORTIONS)
    return bright & shaped & (late.kinds[a] == early.kinds[b]).all(axis=1)
