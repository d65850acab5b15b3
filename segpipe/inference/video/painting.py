"""Draw classes over video frames, fast: colours from lookup tables, blended in 8 bits."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import contours
from segpipe.inference.video.frame_source import Picture
from segpipe.samples import ClassTable

_REFERENCE_HEIGHT = 720
"""Height of a picture, in pixels, at which text has its normal size."""
_MIN_TEXT_SCALE = 0.4


class Painter:
    """Draws the same as `segpipe.data.drawing.overlay`, to within one grey value.

    Classes are filled with `alpha` of their colour and outlined in their colour. Classes whose colour is black are not drawn.

    Args:
        classes: The model's class table.
        alpha: Opacity of the classes, 0..1.
    """

    def __init__(self, classes: ClassTable, alpha: float = 0.45) -> None:
        colors = np.zeros((256, 1, 3), np.uint8)
        colors[: len(classes.palette), 0] = classes.palette[:, ::-1]
        drawn = colors.max(2) > 0  # (256, 1)
        self._colors, self._drawn = colors, np.where(drawn[:, 0], 255, 0).astype(np.uint8)
        self._fill = (colors * alpha + 0.5).astype(np.uint8)
        self._keep = np.repeat(np.where(drawn, round(255 * (1 - alpha)), 255)[..., None], 3, 2).astype(np.uint8)

    def __call__(self, frame: Picture, class_ids: npt.NDArray[np.uint8]) -> Picture:
        """Draw class ids (H, W) over a frame (H, W, 3), BGR, and return a new picture."""
        background = cv2.multiply(frame, cv2.applyColorMap(class_ids, self._keep), scale=1 / 255)
        filled = cv2.add(background, cv2.applyColorMap(class_ids, self._fill))
        outline = contours(class_ids).view(np.uint8) & cv2.LUT(class_ids, self._drawn)
        return cv2.copyTo(cv2.applyColorMap(class_ids, self._colors), outline, filled)


def draw_corner_text(picture: Picture, text: str) -> None:
    """Write a line of text into the upper left corner, white with a black outline, at a size that suits the picture."""
    scale = max(_MIN_TEXT_SCALE, picture.shape[0] / _REFERENCE_HEIGHT)
    origin, font = (round(10 * scale), round(28 * scale)), cv2.FONT_HERSHEY_SIMPLEX
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, origin, font, 0.8 * scale, color, max(1, round(width * scale)), cv2.LINE_AA)
