"""Images and labels as pictures for people: 8-bit RGB, coloured overlays, thumbnails."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""


def to_display(image: np.ndarray) -> Picture:
    """(H, W), or (H, W, C), of any real dtype -> (H, W, 3), uint8.

    8-bit values are kept. Others are stretched from the 0.5th to the 99.5th percentile of the image, all channels alike.
    Grey is repeated; of more than three channels the first three are shown.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype != np.uint8:
        low, high = np.percentile(image[::4, ::4], (0.5, 99.5))
        image = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1e-9)) + 0.5, 0, 255).astype(np.uint8)
    if image.shape[2] < 3:
        return np.repeat(image[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def overlay(image: np.ndarray, class_ids: np.ndarray, colors: np.ndarray, alpha: float = 0.45) -> Picture:
    """Classes over an image: filled with `alpha` of their colour, outlined with all of it.

    image: as `to_display` takes. class_ids: (H, W), uint8. colors: (n_classes, 3), uint8. Left clear: classes whose colour is
    black, as that of a background is, and pixels that are no class (ignored ones).
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    weights = np.zeros(256, np.float32)
    weights[: len(colors)] = alpha * colors.any(1)
    outline = contours(class_ids) & (weights[class_ids] > 0)
    weight = np.where(outline, 1, weights[class_ids])[:, :, None].astype(np.float32)
    mixed: npt.NDArray[np.float32] = to_display(image) * (1 - weight) + table[class_ids] * weight
    return (mixed + 0.5).astype(np.uint8)


def contours(class_ids: np.ndarray) -> npt.NDArray[np.bool_]:
    """(H, W) -> (H, W): where a pixel differs from one of its four neighbours."""
    edge = np.zeros(class_ids.shape, bool)
    down, right = class_ids[1:] != class_ids[:-1], class_ids[:, 1:] != class_ids[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def thumbnail(image: np.ndarray, edge: int) -> Picture:
    """An image (as `to_display` takes) no larger than `edge` pixels either way, its proportions kept; never enlarged."""
    picture = to_display(image)
    scale = edge / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
