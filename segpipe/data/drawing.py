"""Draw images and labels for people: 8-bit RGB pictures, coloured overlays and thumbnails."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.samples import UNKNOWN

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), RGB 0..255."""

_FILL_ALPHA = 90
"""Opacity, 0..255, of the filled classes of `label_layer`."""

_HUES = 180
"""The number of hues in OpenCV's 8-bit HSV."""


def to_display(image: np.ndarray) -> Picture:
    """Convert an image to an 8-bit RGB picture.

    8-bit values are kept. Other values are stretched from the 0.5th to the 99.5th percentile of the image, over all channels together.

    Args:
        image: (H, W), (H, W, C) or, for a volume, (D, H, W, C), any real type. Of a volume the middle slice is shown. One channel is
            shown as grey; of two channels the first is shown, of more than three the first three.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    plane = displayed_plane(image)
    return _stretched(plane, intensity_window(plane))


def displayed_plane(image: np.ndarray) -> np.ndarray:
    """Select the slice and the channels that `to_display` shows: a view (H, W, 1 or 3) of an image or volume in its own type."""
    if image.ndim == 4:
        image = image[len(image) // 2]
    if image.ndim == 2:
        image = image[:, :, None]
    return image[:, :, : 1 if image.shape[2] < 3 else 3]


def intensity_window(plane: np.ndarray) -> tuple[float, float] | None:
    """Compute the 0.5th and the 99.5th percentile of an image (H, W, C), over every fourth row and column; None for uint8."""
    if plane.dtype == np.uint8:
        return None
    low, high = np.percentile(plane[::4, ::4], (0.5, 99.5))
    return float(low), float(high)


def _stretched(plane: np.ndarray, window: tuple[float, float] | None) -> Picture:
    if window is not None:
        low, high = window
        plane = np.clip((plane.astype(np.float32) - low) * (255 / max(high - low, 1e-9)) + 0.5, 0, 255).astype(np.uint8)
    if plane.shape[2] == 1:
        return np.repeat(plane, 3, axis=2)
    return np.ascontiguousarray(plane)


def fullest_slice(class_ids: np.ndarray) -> int:
    """Choose the slice of a labelled volume to show.

    Args:
        class_ids: (D, H, W), uint8.

    Returns:
        The index of the slice with the most voxels that are neither class 0 nor ignored; that of the middle slice if there are none.
    """
    counts = [int(np.count_nonzero((plane > 0) & (plane < UNKNOWN))) for plane in class_ids]
    return int(np.argmax(counts)) if any(counts) else len(counts) // 2


def overlay(image: np.ndarray, class_ids: np.ndarray, colors: np.ndarray, alpha: float = 0.45) -> Picture:
    """Draw classes over an image: filled with transparent colour, outlined with opaque colour.

    Classes with the colour black (usually the background) and ignored pixels are left clear.

    Args:
        image: any image that `to_display` takes.
        class_ids: (H, W), uint8; with a volume (D, H, W), of which `fullest_slice` is drawn.
        colors: (n_classes, 3), uint8, RGB.
        alpha: the opacity of the fill, 0..1.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    if class_ids.ndim == 3:
        index = fullest_slice(class_ids)
        image, class_ids = image[index], class_ids[index]
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    weights = np.zeros(256, np.float32)
    weights[: len(colors)] = alpha * colors.any(1)
    outline = contours(class_ids) & (weights[class_ids] > 0)
    weight = np.where(outline, 1, weights[class_ids])[:, :, None].astype(np.float32)
    mixed: npt.NDArray[np.float32] = to_display(image) * (1 - weight) + table[class_ids] * weight
    return (mixed + 0.5).astype(np.uint8)


def contours(class_ids: np.ndarray) -> npt.NDArray[np.bool_]:
    """Find the pixels (H, W) that differ from one of their four neighbours."""
    edge = np.zeros(class_ids.shape, bool)
    down, right = class_ids[1:] != class_ids[:-1], class_ids[:, 1:] != class_ids[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def outline_instances(image: np.ndarray, ids: np.ndarray) -> Picture:
    """Draw the outline of each instance over an image, inside the instance. Neighbouring ids get different colours.

    Args:
        image: any image that `to_display` takes.
        ids: (H, W), instance ids of any unsigned integer type; 0 is the background.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    picture = to_display(image).copy()
    outline = contours(ids) & (ids > 0)
    outline_ids = ids[outline].astype(np.int64)
    hues = (outline_ids * 111) % _HUES  # 111 is near the golden section of 180, so hues of successive ids are far apart
    hsv = np.stack([hues, np.full_like(hues, 220), np.full_like(hues, 255)], axis=-1).astype(np.uint8)
    if len(outline_ids):
        picture[outline] = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return picture


def thumbnail(image: np.ndarray, edge: int) -> Picture:
    """Scale an image down to a small picture with the same proportions. A small image is not enlarged.

    Args:
        image: any image that `to_display` takes.
        edge: the largest height and width in pixels.

    Returns:
        (h, w, 3), uint8, RGB.
    """
    plane = displayed_plane(image)
    window = intensity_window(plane)
    scale = edge / max(plane.shape[:2])
    if scale < 1:
        size = (max(1, round(plane.shape[1] * scale)), max(1, round(plane.shape[0] * scale)))
        plane = np.atleast_3d(cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_AREA))
    return _stretched(plane, window)


def label_layer(class_ids: np.ndarray, colors: np.ndarray, ids: np.ndarray | None = None) -> npt.NDArray[np.uint8]:
    """Draw classes as a transparent layer to put over an image: lightly filled, with opaque outlines.

    Classes with the colour black (usually the background) and ignored pixels are left clear.

    Args:
        class_ids: (H, W), uint8.
        colors: (n_classes, 3), uint8, RGB.
        ids: (H, W), instance ids, to outline each instance; None to outline classes only.

    Returns:
        (H, W, 4), uint8, RGBA.
    """
    table = np.zeros((256, 4), np.uint8)
    table[: len(colors), :3] = colors
    table[: len(colors), 3] = np.where(colors.any(1), _FILL_ALPHA, 0)
    layer: npt.NDArray[np.uint8] = table[class_ids]
    outline = contours(class_ids) if ids is None else contours(class_ids) | contours(ids)
    layer[outline & (layer[:, :, 3] > 0), 3] = 255
    return layer
