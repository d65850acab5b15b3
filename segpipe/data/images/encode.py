"""Arrays as files that lose nothing."""

from __future__ import annotations

import io

import cv2
import numpy as np


def encode_png(array: np.ndarray) -> bytes:
    """(H, W) or (H, W, 3) RGB, uint8 or uint16 -> the bytes of a PNG file."""
    flipped = array[:, :, ::-1] if array.ndim == 3 and array.shape[2] == 3 else array
    done, content = cv2.imencode(".png", np.ascontiguousarray(flipped))
    assert done, f"PNG takes no {array.dtype} array of shape {array.shape}"
    return content.tobytes()


def encode_tiff(array: np.ndarray) -> bytes:
    """(H, W, C) of any number of channels, uint8, uint16 or float32 -> the bytes of a TIFF file (deflate).

    Channels are kept as they are: none is taken for a colour or for alpha.
    """
    import tifffile

    stream = io.BytesIO()
    extra = (0,) * (array.shape[2] - 1)
    tifffile.imwrite(
        stream,
        array if extra else array[:, :, 0],
        photometric="minisblack",
        planarconfig="contig" if extra else None,
        compression="adobe_deflate",
        extrasamples=extra,
        metadata=None,
        software="",
        maxworkers=1,
    )
    return stream.getvalue()


def encode_stack(array: np.ndarray) -> bytes:
    """(D, H, W), uint8 or uint16 -> the bytes of a TIFF file (deflate) with a page for each slice."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(
        stream, array, photometric="minisblack", compression="adobe_deflate", metadata=None, software="", maxworkers=1
    )
    return stream.getvalue()
