"""Images and labels as pictures for people: 8-bit RGB, coloured overlays, thumbnails."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.samples import UNKNOWN

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), RGB."""


def to_display(image: np.ndarray) -> Picture:
    """(H, W), (H, W, C) or, of a volume, (D, H, W, C), of any real dtype -> (H, W, 3), uint8.

    8-bit values are kept. Others are stretched from the 0.5th to the 99.5th percentile of the image, all channels alike.
    Grey is repeated; of more than three channels the first three are shown; of a volume, the middle slice.
    """
    image = displayed_plane(image)
    return _stretched(image, intensity_window(image))


def displayed_plane(image: np.ndarray) -> np.ndarray:
    """(H, W, C), C 1 or 3: what people see of an image or volume (as `to_display` takes), as a view in its own dtype."""
    if image.ndim == 4:
        image = image[len(image) // 2]
    if image.ndim == 2:
        image = image[:, :, None]
    return image[:, :, : 1 if image.shape[2] < 3 else 3]


def intensity_window(image: np.ndarray) -> tuple[float, float] | None:
    """The 0.5th and the 99.5th percentile of every fourth pixel (H, W, C) each way; None for 8-bit values, which need no window."""
    if image.dtype == np.uint8:
        return None
    low, high = np.percentile(image[::4, ::4], (0.5, 99.5))
    return float(low), float(high)


def _stretched(image: np.ndarray, limits: tuple[float, float] | None) -> Picture:
    if limits is not None:
        low, high = limits
        image = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1e-9)) + 0.5, 0, 255).astype(np.uint8)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def fullest_slice(class_ids: np.ndarray) -> int:
    """The slice of a labelled volume (D, H, W) to show: the one with the most voxels that are neither class 0 nor ignored; the
    middle one where there are none.
    """
    counts = [int(np.count_nonzero((plane > 0) & (plane < UNKNOWN))) for plane in class_ids]
    return int(np.argmax(counts)) if any(counts) else len(counts) // 2


def overlay(image: np.ndarray, class_ids: np.ndarray, colors: np.ndarray, alpha: float = 0.45) -> Picture:
    """Classes over an image: filled with `alpha` of their colour, outlined with all of it.

    image: as `to_display` takes. class_ids: (H, W), uint8, or (D, H, W) with a volume, of which `fullest_slice` is drawn.
    colors: (n_classes, 3), uint8. Left clear: classes whose colour is black, as that of a background is, and pixels that are no
    class (ignored ones).
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
    """(H, W) -> (H, W): where a pixel differs from one of its four neighbours."""
    edge = np.zeros(class_ids.shape, bool)
    down, right = class_ids[1:] != class_ids[:-1], class_ids[:, 1:] != class_ids[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def outline_instances(image: np.ndarray, ids: np.ndarray) -> Picture:
    """Objects over an image: a line along the border of each, within it, neighbours in different colours.

    image: as `to_display` takes. ids: (H, W), any unsigned integer; 0 for none.
    """
    picture = to_display(image).copy()
    line = contours(ids) & (ids > 0)
    of_line = ids[line].astype(np.int64)
    hues = (of_line * 111) % 180  # OpenCV's hues end at 180; 111 is near the golden section, so that neighbours differ
    hsv = np.stack([hues, np.full_like(hues, 220), np.full_like(hues, 255)], axis=-1).astype(np.uint8)
    if len(of_line):
        picture[line] = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return picture


def thumbnail(image: np.ndarray, edge: int) -> Picture:
    """An image (as `to_display` takes) no larger than `edge` pixels either way, its proportions kept; never enlarged."""
    part = displayed_plane(image)
    limits = intensity_window(part)
    scale = edge / max(part.shape[:2])
    if scale < 1:
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        part = np.atleast_3d(cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA))
    return _stretched(part, limits)


def label_layer(class_ids: np.ndarray, colors: np.ndarray, ids: np.ndarray | None = None) -> npt.NDArray[np.uint8]:
    """Classes as a layer over a photograph: (H, W, 4), RGBA, filled lightly, outlined in full.

    class_ids: (H, W), uint8. colors: (n_classes, 3), uint8. ids: (H, W), of objects that are outlined apart. Clear are
    classes whose colour is black, as that of a background is, and pixels that are no class.
    """
    table = np.zeros((256, 4), np.uint8)
    table[: len(colors), :3] = colors
    table[: len(colors), 3] = np.where(colors.any(1), 90, 0)
    layer: npt.NDArray[np.uint8] = table[class_ids]
    outline = contours(class_ids) if ids is None else contours(class_ids) | contours(ids)
    layer[outline & (layer[:, :, 3] > 0), 3] = 255
    return layer
