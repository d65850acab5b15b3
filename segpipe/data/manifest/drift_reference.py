"""The reference for drift, from a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segpipe.data.manifest.table import usable
from segpipe.drift.image_statistics import quantity_columns
from segpipe.drift.reference import Reference
from segpipe.errors import DataError
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

_MAX_IMAGES = 5000
"""Images that a reference holds, chosen by their hashes: quantiles need no more, and the file stays small."""


def make_reference(manifest: pd.DataFrame, classes: ClassTable) -> Reference:
    """Make the reference for drift of the images in a manifest.

    Args:
        manifest: the manifest. Rows that cannot be trained on, and images of another dtype or number of channels than most, are left
            out.
        classes: the classes of the masks.

    Returns:
        The quantities of the images, ordered by key.

    Raises:
        DataError: the manifest has no usable image.
    """
    rows = manifest[usable(manifest)]
    if rows.empty:
        raise DataError(
            "no usable image to make a reference from", fix="correct the files that `segpipe validate` lists"
        )
    dtype, channels = str(rows["dtype"].mode().iloc[0]), int(rows["channels"].mode().iloc[0])
    rows = rows[(rows["dtype"] == dtype) & (rows["channels"] == channels)]
    sampled = rows.sort_values("sha256").head(_MAX_IMAGES).sort_values("key")
    means, deviations, class_pixels = (np.stack(sampled[name].to_list()) for name in ("mean", "std", "class_pixels"))
    return Reference.from_columns(dtype, len(rows), quantity_columns(means, deviations, class_pixels, classes.names))
