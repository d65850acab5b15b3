"""Encode arrays as lossless image files."""

from __future__ import annotations

import io

import cv2
import numpy as np


def encode_png(array: np.ndarray) -> bytes:
    """Encode an image as PNG.

    Args:
        array: (H, W) or (H, W, 3) RGB, uint8 or uint16.

    Returns:
        The bytes of the file.
    """
    bgr = array[:, :, ::-1] if array.ndim == 3 and array.shape[2] == 3 else array
    encoded, content = cv2.imencode(".png", np.ascontiguousarray(bgr))
    assert encoded, f"PNG cannot store a {array.dtype} array of shape {array.shape}"
    return content.tobytes()


def encode_tiff(array: np.ndarray) -> bytes:
    """Encode an image with any number of channels as TIFF (deflate). No channel is marked as a colour or as alpha.

    Args:
        array: (H, W, C), uint8, uint16 or float32.

    Returns:
        The bytes of the file.
    """
    import tifffile

    stream = io.BytesIO()
    extra_samples = (0,) * (array.shape[2] - 1)
    tifffile.imwrite(
        stream,
        array if extra_samples else array[:, :, 0],
        photometric="minisblack",
        planarconfig="contig" if extra_samples else None,
        compression="adobe_deflate",
        extrasamples=extra_samples,
        metadata=None,
        software="",
        maxworkers=1,
    )
    return stream.getvalue()


def encode_stack(array: np.ndarray) -> bytes:
    """Encode a volume (D, H, W), uint8 or uint16, as a TIFF file (deflate) with one page per slice; return its bytes."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(
        stream, array, photometric="minisblack", compression="adobe_deflate", metadata=None, software="", maxworkers=1
    )
    return stream.getvalue()
