"""Pictures as `data:` addresses, which pages embed instead of linking to files."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import Picture

_JPEG_QUALITY = 85
_WEBP_QUALITY = 82


def photo_uri(picture: Picture) -> str:
    """Embed a photograph as JPEG, which is small. picture: (H, W, 3), uint8, RGB."""
    return _encode(picture[:, :, ::-1], "jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def webp_uri(picture: Picture) -> str:
    """Embed a photograph or a drawing as WebP, which is smaller than JPEG and slower. picture: (H, W, 3), uint8, RGB."""
    return _encode(picture[:, :, ::-1], "webp", [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])


def mask_uri(picture: Picture) -> str:
    """Embed a coloured mask as PNG, which keeps every pixel. picture: (H, W, 3), uint8, RGB."""
    return _encode(picture[:, :, ::-1], "png", [])


def layer_uri(layer: npt.NDArray[np.uint8]) -> str:
    """Embed a transparent layer that lies over a picture, as PNG. layer: (H, W, 4), uint8, RGBA."""
    return _encode(layer[:, :, [2, 1, 0, 3]], "png", [])


def _encode(pixels: np.ndarray, kind: str, options: list[int]) -> str:
    """Encode pixels in OpenCV's order (BGR or BGRA)."""
    done, content = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels), options)
    assert done
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
