"""The same picture more than once: exact copies by content, near-duplicates by perceptual hash and brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.data.splits import SPLITS
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 1 << 21
"""Pairs that are compared at a time: 16 MiB of hashes, whatever the number of images."""
_PROPORTIONS = 1.05
"""How much the proportions of two versions of one image may differ: what cropping a few pixels does to a small one."""


class Lookalike(NamedTuple):
    """The image of another split that an image resembles most."""

    path: str
    split: str
    distance: int
    """Bits of 64 in which the perceptual hashes differ."""
    others: int
    """Further images, beside this one, that it resembles."""


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


def near_duplicates(manifest: pd.DataFrame, distance: int, tolerance: float) -> dict[Any, Lookalike]:
    """Images that resemble one of another split, by row: the later one of train, val, test, so that a pair is told once.

    Two images resemble each other where at most `distance` bits of their perceptual hashes differ, and the means and standard
    deviations of every channel by at most `tolerance`, as a share of the brighter image's brightest channel (mean + deviation),
    and the proportions are the same (in volumes the slices too). This keeps apart what merely has one composition, such as cells
    in the middle of a slide in two stains, or the same organ of two people.
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
            found |= _compare(_Looks.of(late, width), _Looks.of(early, width), distance, tolerance)
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
        )


def _stack(lists: pd.Series, width: int) -> npt.NDArray[np.float64]:
    """(n, width): a list a row, 0 beyond its end."""
    table = np.zeros((len(lists), width))
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return table


def _compare(late: _Looks, early: _Looks, distance: int, tolerance: float) -> dict[Any, Lookalike]:
    step = max(1, _BLOCK // len(early.hashes))
    starts = range(0, len(late.hashes), step)
    found: dict[Any, Lookalike] = {}
    for start in track(starts, "comparing images", len(starts)):
        bits = np.bitwise_count(late.hashes[start : start + step, None] ^ early.hashes)
        a, b = np.nonzero(bits <= distance)
        apart = bits[a, b]
        a += start
        alike = _alike(late, a, early, b, tolerance) & (late.contents[a] != early.contents[b])
        a, b, apart = a[alike], b[alike], apart[alike]
        order = np.lexsort((b, apart, a))
        firsts, counts = np.unique(a[order], return_index=True)[1], np.unique(a, return_counts=True)[1]
        for first, count in zip(order[firsts], counts, strict=True):
            other = b[first]
            near = Lookalike(early.paths[other], early.splits[other], int(apart[first]), int(count) - 1)
            found[late.places[a[first]]] = near
    return found


def _alike(late: _Looks, a: np.ndarray, early: _Looks, b: np.ndarray, tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether brightness and shape of pairs agree. a, b: (pairs,) places in `late` and `early`."""
    off = np.abs(late.moments[a] - early.moments[b]).max(axis=1)
    bright: np.ndarray = off <= tolerance * np.maximum(late.scale[a], early.scale[b])
    shaped = np.abs(late.aspects[a] - early.aspects[b]) <= np.log(_PROPORTIONS)
    return bright & shaped & (late.kinds[a] == early.kinds[b]).all(axis=1)
