"""Images that differ much from the others: in brightness, size or sharpness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

_MIN_IMAGES = 8
"""With fewer images, none is an outlier."""
_MIN_RELATIVE_SPREAD = 0.02
"""The smallest spread of brightness, as a share of the median: images from one camera differ very little."""


def robust_z(values: npt.NDArray[np.float64], min_spread: float = 0.0) -> npt.NDArray[np.float64]:
    """Compute modified z-scores: distances from the median in units of the median absolute deviation, scaled to a normal deviate.

    Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, who call values beyond 3.5 outliers.

    Args:
        values: (n,).
        min_spread: smaller deviations count as this one.

    Returns:
        (n,); zeros if all values are equal, or if there are fewer than eight.
    """
    if len(values) < _MIN_IMAGES:
        return np.zeros(len(values))
    offset = values - np.median(values)
    spread = max(float(np.median(np.abs(offset))), min_spread)
    if spread == 0:
        spread = float(np.abs(offset).mean()) or 1.0
    return 0.6745 * offset / spread


def brightness_z(manifest: pd.DataFrame) -> pd.Series:
    """Compute the largest robust z-score, up or down, of an image's channel means among images of the same dtype and channels.

    Args:
        manifest: the manifest.

    Returns:
        Scores with the index of the manifest; 0 for rows without an image.
    """
    import pandas as pd

    scores = pd.Series(0.0, manifest.index)
    readable = manifest[manifest["mean"].notna()]
    for _, group in readable.groupby(["dtype", "channels"]):
        means = np.stack(group["mean"].to_list())
        by_channel = [robust_z(column, _MIN_RELATIVE_SPREAD * abs(float(np.median(column)))) for column in means.T]
        scores[group.index] = np.abs(by_channel).max(axis=0)
    return scores


def size_ratio(manifest: pd.DataFrame) -> pd.Series:
    """Return how many times longer or shorter than the median an image's height or width is, whichever is more; 1 is usual."""
    ratio = manifest[["height", "width"]].astype(float)
    ratio = ratio / ratio.median()
    return ratio.where(ratio >= 1, 1 / ratio).max(axis=1).fillna(1.0)


def softness(manifest: pd.DataFrame) -> pd.Series:
    """Compute how far the logarithm of an image's sharpness is below the median, as a robust z-score; 0 for blank or missing images."""
    import pandas as pd

    scores = pd.Series(0.0, manifest.index)
    sharp = manifest["sharpness"].astype(float)
    for _, group in sharp[sharp > 0].groupby(manifest["dtype"]):
        scores[group.index] = -robust_z(np.log(group.to_numpy()), min_spread=0.1)
    return scores
