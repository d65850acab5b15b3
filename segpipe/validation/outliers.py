"""Images that are far from the others: by brightness, by size, by sharpness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 8
"""Images below which nothing is an outlier: there is no crowd to stand out from."""
_NARROWEST = 0.02
"""The least spread that is believed, as a share of the median: collections from one camera differ by next to nothing."""


def robust_z(values: npt.NDArray[np.float64], least_spread: float = 0.0) -> npt.NDArray[np.float64]:
    """How far each value lies from the median, in units of the median absolute deviation, scaled to a normal deviate.

    values: (n,). The deviation counts as `least_spread` at least. Zeros where all values are one, or where there are fewer than
    eight. (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, who call values beyond 3.5 outliers.)
    """
    if len(values) < _FEWEST:
        return np.zeros(len(values))
    offset = values - np.median(values)
    spread = max(float(np.median(np.abs(offset))), least_spread)
    if spread == 0:
        spread = float(np.abs(offset).mean()) or 1.0
    return 0.6745 * offset / spread


def brightness_z(manifest: pd.DataFrame) -> pd.Series:
    """The largest robust z-score, either way, of an image's channel means among images of its number type and channels.

    0 for rows without an image. Index as the manifest's.
    """
    import pandas as pd

    scores = pd.Series(0.0, manifest.index)
    readable = manifest[manifest["mean"].notna()]
    for _, alike in readable.groupby(["dtype", "channels"]):
        means = np.stack(alike["mean"].to_list())
        by_channel = [robust_z(column, _NARROWEST * abs(float(np.median(column)))) for column in means.T]
        scores[alike.index] = np.abs(by_channel).max(axis=0)
    return scores


def size_ratio(manifest: pd.DataFrame) -> pd.Series:
    """How many times longer or shorter than usual (the median) the image's height or width is, whichever is more; 1 is usual."""
    ratio = manifest[["height", "width"]].astype(float)
    ratio = ratio / ratio.median()
    return ratio.where(ratio >= 1, 1 / ratio).max(axis=1).fillna(1.0)


def softness(manifest: pd.DataFrame) -> pd.Series:
    """How far the logarithm of an image's sharpness lies below the median, as a robust z-score; 0 for blank or missing images."""
    import pandas as pd

    scores = pd.Series(0.0, manifest.index)
    sharp = manifest["sharpness"].astype(float)
    for _, alike in sharp[sharp > 0].groupby(manifest["dtype"]):
        scores[alike.index] = -robust_z(np.log(alike.to_numpy()), least_spread=0.1)
    return scores
