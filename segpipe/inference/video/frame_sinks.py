"""Where frames go: a video of overlays, and a folder of masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.errors import ConfigError
from segpipe.inference.files.render import mask_png
from segpipe.inference.video.frame_source import Picture
from segpipe.samples import ClassTable, Prediction

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""Encoders that OpenCV's wheels bring along, by the ending of the file."""


class VideoFile:
    """A video that is written frame by frame; `close` makes it playable.

    A frame of another size than the first is brought to that size. Encoders want an even number of rows and columns: where there
    is an odd one, the last is repeated.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.written = 0

    def write(self, picture: Picture, at: float | None = None) -> None:
        """Add a picture, (H, W, 3), BGR. at: when it is to be seen, in seconds from the start, where frames come irregularly: the
        picture is repeated until then."""
        if self._writer is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._writer = self._open()
        elif self._size != (picture.shape[1], picture.shape[0]):
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        width, height = self._size
        if width % 2 or height % 2:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        until = self.written + 1 if at is None else max(self.written + 1, round(at * self._rate) + 1)
        for _ in range(until - self.written):
            self._writer.write(picture)
        self.written = until

    def _open(self) -> cv2.VideoWriter:
        suffix = self._path.suffix
        even = (self._size[0] + self._size[0] % 2, self._size[1] + self._size[1] % 2)
        writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*CODECS[suffix]), self._rate, even)
        if not writer.isOpened():
            other = next(ending for ending in CODECS if ending != suffix)
            raise ConfigError(
                "this OpenCV has no encoder for such a video",
                where=self._path,
                found=f"{CODECS[suffix]} in {suffix}",
                fix=f"give --out a name that ends in {other}, or install the wheel: pip install opencv-python-headless",
            )
        return writer

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


class MaskFolder:
    """A PNG for each frame, `000000.png` and so on by the number of the frame, with the pixel values that training masks have."""

    def __init__(self, folder: Path, classes: ClassTable) -> None:
        if any(folder.glob("*.png")):
            raise ConfigError(
                "the folder holds masks already", where=folder, fix="name a new folder, or empty this one"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._classes = folder, classes

    def write(self, index: int, class_ids: npt.NDArray[np.uint8]) -> None:
        """Write the mask (H, W) of a frame. Not by way of a temporary file: syncing each would take longer than the network."""
        (self._folder / f"{index:06d}.png").write_bytes(mask_png(Prediction(class_ids), self._classes))
