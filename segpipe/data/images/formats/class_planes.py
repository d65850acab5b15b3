"""Label volumes that hold one volume of 0 and 1 per class (one-hot), along the fourth axis of NIfTI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError

_FIX = "save one volume whose values are the classes"


def classes_of_planes(array: np.ndarray, where: str) -> npt.NDArray[np.uint8]:
    """Return the class of each voxel of a one-hot label volume.

    Args:
        array: (D, H, W, C), one channel per class, the background first.
        where: the name of the file in errors.

    Returns:
        (D, H, W), the number of the channel that is 1.

    Raises:
        DataError: the channels are not one-hot, or the first is not the largest and so may not be the background.
    """
    channels = array.shape[-1]
    axis_text = f"{channels} volumes along the fourth axis"
    expected = "one volume of class values, or one volume of 0 and 1 per class, the background first"
    covered = np.zeros(array.shape[:-1], np.uint16)
    sizes = []
    for channel in range(channels):
        plane = array[..., channel] == 1
        if not (plane | (array[..., channel] == 0)).all():
            raise DataError(
                "the label volume has a fourth axis", where=where, found=f"{axis_text}, with other values than 0 and 1",
                expected=expected, fix=_FIX,
            )  # fmt: skip
        covered += plane
        sizes.append(int(plane.sum()))
    if channels > 256 or covered.min() != 1 or covered.max() != 1:
        state = "overlap" if covered.max() > 1 else "leave voxels without a class"
        raise DataError(
            "the label volume has a fourth axis", where=where, found=f"{axis_text}, which {state}", expected=expected,
            fix=_FIX,
        )  # fmt: skip
    if max(sizes) != sizes[0]:
        raise DataError(
            "the label volume has a fourth axis", where=where,
            found=f"{axis_text}, of which number {sizes.index(max(sizes)) + 1} is the largest", expected=expected, fix=_FIX,
        )  # fmt: skip
    classes = np.zeros(array.shape[:-1], np.uint8)
    for channel in range(1, channels):
        classes[array[..., channel] == 1] = channel
    return classes
