"""Convert the values of an image to the number type and the range of the training images, where that is exact; else refuse it.

A network that was trained on 8-bit images answers a 16-bit image of the same scene with nonsense, because the intensity window
(`segpipe.inference.preprocess.Normalisation`) is in stored values. Converted are only values for which one factor is certain:

- 16-bit values that are all multiples of 257 (8 bits repeated) or of 256 (8 bits shifted), and 8-bit values in the other direction if the
  training images use the whole range of 16 bits;
- floats from 0 to 1 that are 8- or 16-bit values divided by 255 or 65535, and such integers in the other direction;
- the same whole numbers in another type.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError
from segpipe.inference.input_contract.spec import InputSpec

_REPEATED, _SHIFTED = 257, 256
"""The factors by which programs spread 8 bits over 16."""
_TOLERANCE = {255: 0.1, 65535: 0.02}
"""How far a float from 0 to 1 may be from an integer after multiplication: the rounding of 16-bit floats, and of 32-bit floats."""
_WIDE_SPAN = 1 << 15
"""Values that span more than this use the whole range of 16 bits."""
_MIN_SPREAD = 1 / 8
"""An image of another number type must have at least this share of the smallest spread of the training images."""
_MAX_OUTSIDE = 0.5
"""The largest share of values that may lie outside the range of the training images."""
_BAND = 1 << 20

_FIX = "save the image with the same number type and scale as the training images"


def to_training_values(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, list[str]]:
    """Convert the values of an image to those of the training images.

    Args:
        image: (..., C), any real dtype.
        spec: the training images.

    Returns:
        The image in the dtype of the training images, and the notes about what was converted.

    Raises:
        DataError: no exact conversion is known, or the values are on another scale.
    """
    if image.dtype == spec.dtype:
        check_scale(image, spec)
        return image, []
    converted: np.ndarray
    if spec.dtype == "uint8":
        converted, note = _to_uint8(image, spec)
    elif spec.dtype == "uint16":
        converted, note = _to_uint16(image, spec)
    else:
        converted, note = _to_float32(image, spec)
    check_scale(converted, spec)
    return converted, [note]


def check_scale(image: np.ndarray, spec: InputSpec) -> None:
    """Refuse an image whose values are on another scale than those of the training images.

    Args:
        image: (..., C), in the dtype of the training images.
        spec: the training images.

    Raises:
        DataError: most values are far outside the range of the training images; or the values are fractions while the training images have
            whole numbers, and their range or spread is another one.
    """
    if image.dtype == np.uint8:
        return
    low, high = min(spec.minimum), max(spec.maximum)
    other_kind = spec.whole_numbers and not are_whole(image)
    margin = 0.0 if other_kind else high - low
    outside = float(((image < low - margin) | (image > high + margin)).mean())
    spread = np.subtract(*np.percentile(image, (99.5, 0.5))) if other_kind else np.inf
    if outside > _MAX_OUTSIDE or spread < _MIN_SPREAD * min(spec.spread):
        raise _refused(image, spec)


def are_whole(image: np.ndarray) -> bool:
    """Return whether all values are whole numbers."""
    if image.dtype.kind in "bui":
        return True
    flat = image.reshape(-1)
    return all(bool((part == np.rint(part)).all()) for part in _bands(flat))


def _to_uint8(image: np.ndarray, spec: InputSpec) -> tuple[npt.NDArray[np.uint8], str]:
    if image.dtype == np.uint16:
        for factor in (_REPEATED, _SHIFTED):
            if all(not (part % factor).any() for part in _bands(image.reshape(-1))):
                return (image // factor).astype(np.uint8), f"16-bit values divided by {factor}"
        raise _refused(image, spec)
    if are_whole(image) and image.min() >= 0 and image.max() <= 255 and not _is_binary(image):
        return image.astype(np.uint8), "whole numbers stored as 8 bits"
    return _scaled_up(image, 255, spec).astype(np.uint8), "values from 0 to 1 multiplied by 255"


def _to_uint16(image: np.ndarray, spec: InputSpec) -> tuple[npt.NDArray[np.uint16], str]:
    if max(spec.maximum) <= 255 and image.dtype == np.uint8:
        return image.astype(np.uint16), "8-bit values stored as 16 bits"
    wide = spec.span >= _WIDE_SPAN
    if image.dtype == np.uint8 and wide:
        return image.astype(np.uint16) * np.uint16(_REPEATED), f"8-bit values multiplied by {_REPEATED}"
    if image.dtype.kind == "u" and image.itemsize == 1:
        raise _refused(image, spec)
    if are_whole(image) and image.min() >= 0 and image.max() <= 65535 and not _is_binary(image):
        return image.astype(np.uint16), "whole numbers stored as 16 bits"
    if not wide:
        raise _refused(image, spec)
    return _scaled_up(image, 65535, spec).astype(np.uint16), "values from 0 to 1 multiplied by 65535"


def _to_float32(image: np.ndarray, spec: InputSpec) -> tuple[npt.NDArray[np.float32], str]:
    low, high = min(spec.minimum), max(spec.maximum)
    if image.dtype.kind == "f" or spec.whole_numbers or low < 0 or high > 1:
        return image.astype(np.float32), f"{image.dtype} values stored as floats"
    if high <= 0.5 or (image.dtype != np.uint8 and (image % _REPEATED).any()):
        raise _refused(image, spec)
    top = 255 if image.dtype == np.uint8 else 65535
    return image.astype(np.float32) / np.float32(top), f"values divided by {top}"


def _scaled_up(image: np.ndarray, top: int, spec: InputSpec) -> npt.NDArray[np.float64]:
    """Return floats from 0 to 1 as whole numbers from 0 to `top`. Raises DataError if they are anything else."""
    if image.dtype.kind != "f" or image.min() < 0 or image.max() > 1 or (_is_binary(image) and image.any()):
        raise _refused(image, spec)
    scaled = image.astype(np.float64) * top
    whole = np.rint(scaled)
    if np.abs(scaled - whole).max() > _TOLERANCE[top]:
        raise _refused(image, spec)
    return whole


def _is_binary(image: np.ndarray) -> bool:
    """Return whether floats are only 0 and 1, which may stand for 0..255 or for 0..1."""
    return image.dtype.kind == "f" and bool(((image == 0) | (image == 1)).all())


def _bands(flat: np.ndarray) -> list[np.ndarray]:
    return [flat[start : start + _BAND] for start in range(0, max(1, flat.size), _BAND)]


def _refused(image: np.ndarray, spec: InputSpec) -> DataError:
    kind = {"uint8": "8-bit numbers", "uint16": "16-bit numbers"}.get(image.dtype.name)
    kind = kind or ("floats" if image.dtype.kind == "f" else f"{image.dtype} numbers")
    return DataError(
        "the values are on another scale than those of the training images",
        found=f"{kind} from {image.min():g} to {image.max():g}",
        expected=spec.in_words(),
        fix=_FIX,
    )
