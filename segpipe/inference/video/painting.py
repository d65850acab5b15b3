"""Classes over a frame, fast: colours by table lookup, blended in 8 bits."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import contours
from segpipe.inference.video.frame_source import Picture
from segpipe.samples import ClassTable


class Painter:
    """What `segpipe.data.drawing.overlay` draws, to within a grey value: classes filled with `alpha` of their colour and outlined
    with all of it; classes whose colour is black stay clear."""

    def __init__(self, classes: ClassTable, alpha: float = 0.45) -> None:
        colors = np.zeros((256, 1, 3), np.uint8)
        colors[: len(classes.palette), 0] = classes.palette[:, ::-1]
        shown = colors.max(2) > 0  # (256, 1)
        self._colors, self._shown = colors, np.where(shown[:, 0], 255, 0).astype(np.uint8)
        self._fill = (colors * alpha + 0.5).astype(np.uint8)
        self._keep = np.repeat(np.where(shown, round(255 * (1 - alpha)), 255)[..., None], 3, 2).astype(np.uint8)

    def __call__(self, frame: Picture, class_ids: npt.NDArray[np.uint8]) -> Picture:
        """frame: (H, W, 3), BGR. class_ids: (H, W). A new picture."""
        kept = cv2.multiply(frame, cv2.applyColorMap(class_ids, self._keep), scale=1 / 255)
        drawn = cv2.add(kept, cv2.applyColorMap(class_ids, self._fill))
        outline = contours(class_ids).view(np.uint8) & cv2.LUT(class_ids, self._shown)
        return cv2.copyTo(cv2.applyColorMap(class_ids, self._colors), outline, drawn)  # type: ignore[no-any-return]


def draw_corner_text(picture: Picture, text: str) -> None:
    """A line of text in the upper left corner, white on a dark rim, as high as suits the picture."""
    scale = max(0.4, picture.shape[0] / 720)
    place, font = (round(10 * scale), round(28 * scale)), cv2.FONT_HERSHEY_SIMPLEX
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, place, font, 0.8 * scale, color, max(1, round(width * scale)), cv2.LINE_AA)
