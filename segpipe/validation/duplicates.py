"""The same picture more than once: exact copies by content, near-duplicates by perceptual hash and brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.data.measure import MINIATURE
from segpipe.data.splits import SPLITS
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 1 << 21
"""Pairs that are compared at a time: 16 MiB of hashes, whatever the number of images."""
_PROPORTIONS = 1.05
"""How much the proportions of two versions of one image may differ: what cropping a few pixels does to a small one."""

_FAR_BITS, _FAR_TOLERANCE = 24, 0.12
"""Up to how many bits, and which share of the brightness, apart miniatures are compared: a shift by 4 of 120 pixels changes so many
bits, a tenth more light so much brightness."""
_MOST_LOOKED_AT = 32
"""Miniatures that one image is compared with, those of the nearest hashes."""
_REACH = MINIATURE // 8
"""The largest shift between two miniatures, in their pixels."""


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
    in the middle of a slide in two stains, or the same organ of two people. Where hashes and brightness are farther apart, but not
    all too far, they resemble each other where their miniatures, at the best shift, correlate by `likeness` (see `compare_miniatures`).
    Blank images, whose hashes are all one, and exact copies, which are told as such, are left out.

    All pairs across splits are compared, in blocks (xor and popcount).
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
        bits = np.bitwise_count(late.hashes[start : start + step, None] ^ early.hashes)
        a, b = np.nonzero(bits <= max(distance, _FAR_BITS))
        apart = bits[a, b]
        a += start
        other = late.contents[a] != early.contents[b]
        near = other & (apart <= distance) & _alike(late, a, early, b, tolerance)
        far = np.flatnonzero(other & ~near & _alike(late, a, early, b, _FAR_TOLERANCE))
        alike: dict[int, float | None] = dict.fromkeys(np.flatnonzero(near).tolist())
        for pair in _nearest(a[far], apart[far], far):
            correlation = compare_miniatures(late.miniatures[a[pair]], early.miniatures[b[pair]])
            if correlation >= likeness:
                alike[pair] = correlation
        for pair in sorted(alike, key=lambda pair: (a[pair], apart[pair], b[pair])):
            place, other_place = late.places[a[pair]], b[pair]
            if first := found.get(place):
                found[place] = first._replace(others=first.others + 1)
            else:
                found[place] = Lookalike(
                    early.paths[other_place], early.splits[other_place], int(apart[pair]), 0, alike[pair]
                )
    return found


def _nearest(a: np.ndarray, apart: np.ndarray, pairs: np.ndarray) -> list[int]:
    """Of the pairs of each image `a` the `_MOST_LOOKED_AT` whose hashes are the nearest."""
    order = np.lexsort((apart, a))
    _, first, counts = np.unique(a[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, counts)
    return pairs[order[rank < _MOST_LOOKED_AT]].tolist()  # type: ignore[no-any-return]


def compare_miniatures(one: bytes, other: bytes) -> float:
    """The normalised cross-correlation, -1 .. 1, of two miniatures at their best shift, an eighth of their edge at most.

    The middle of each is looked for in the other. What is wide (the light of a microscope, a cell in the middle) is taken out
    before: it is alike in images of one kind. 0 for blank ones.
    """
    import cv2

    planes = [_detail(miniature) for miniature in (one, other)]
    inner = slice(_REACH, MINIATURE - _REACH)
    found = [
        cv2.matchTemplate(whole, part[inner, inner], cv2.TM_CCOEFF_NORMED).max()
        for whole, part in (planes, planes[::-1])
        if part[inner, inner].std() > 0
    ]
    return float(max(found, default=0.0))


def _detail(miniature: bytes) -> np.ndarray:
    import cv2

    plane = np.frombuffer(miniature, np.uint8).reshape(MINIATURE, MINIATURE).astype(np.float32)
    return plane - cv2.GaussianBlur(plane, (0, 0), MINIATURE / 8)


def _alike(late: _Looks, a: np.ndarray, early: _Looks, b: np.ndarray, tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether brightness and shape of pairs agree. a, b: (pairs,) places in `late` and `early`."""
    off = np.abs(late.moments[a] - early.moments[b]).max(axis=1)
    bright: np.ndarray = off <= tolerance * np.maximum(late.scale[a], early.scale[b])
    shaped = np.abs(late.aspects[a] - early.aspects[b]) <= np.log(_PROPORTIONS)
    return bright & shaped & (late.kinds[a] == early.kinds[b]).all(axis=1)
