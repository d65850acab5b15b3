"""Where frames come from: a file, a camera by its number, a stream by its URL, as OpenCV opens them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.errors import DataError, MissingError, SegpipeError

Picture = npt.NDArray[np.uint8]
"""(H, W, 3), BGR as OpenCV has it."""

_USUAL_RATE = 30.0
"""Frames a second where a source tells none (many cameras)."""


@dataclass(frozen=True)
class Frame:
    """A frame as it was read."""

    index: int
    """From 0, those that were dropped counted."""
    image: Picture
    read_at: float
    """`time.perf_counter()` when it was there."""
    decode_s: float
    """How long the reading took; of a camera that includes the wait for the next frame."""


class Video:
    """An open video. One thread reads it."""

    def __init__(self, capture: cv2.VideoCapture, name: str, live: bool) -> None:
        self._capture, self.name, self.live = capture, name, live
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _USUAL_RATE
        """Frames a second."""
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.promised = int(count) if not live and 0 < count < 1 << 40 else None
        """How many frames the file says it has; None where it does not say, or is a stream."""
        self._index = 0

    def read(self) -> Frame | None:
        """The next frame; None at the end."""
        began = time.perf_counter()
        there, image = self._capture.read()
        if not there:
            return None
        now = time.perf_counter()
        frame = Frame(self._index, image, now, now - began)
        self._index += 1
        return frame

    def close(self) -> None:
        """Give the file or the camera back."""
        self._capture.release()


def open_video(where: str, limits: DataParams) -> Video:
    """Open a file, a camera (`0`) or a stream (`rtsp://...`).

    Raises MissingError where there is no such file or camera, DataError for a file that is no video, or whose frames have more
    pixels than `limits` allow.
    """
    camera, stream = where.isdecimal(), "://" in where
    path = Path(where)
    if not camera and not stream and not path.is_file():
        raise MissingError(
            "no such video", where=where, fix="give a file, the number of a camera (0) or the URL of a stream"
        )
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # what OpenCV warns of is said below
    capture = cv2.VideoCapture(int(where) if camera else where)
    if not capture.isOpened():
        raise _unopened(where, camera, stream)
    video = Video(capture, "camera-" + where if camera else path.stem or "stream", live=camera or stream)
    pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if pixels > limits.max_megapixels * 1e6:
        video.close()
        raise DataError(
            "frames have too many pixels",
            where=where,
            found=f"{pixels / 1e6:.1f} megapixels",
            expected=f"at most {limits.max_megapixels:g}",
            fix="raise `data.max_megapixels` in params.yaml",
        )
    return video


def _unopened(where: str, camera: bool, stream: bool) -> SegpipeError:
    if camera:
        fix = "ls /dev/video*; another program may hold it, or you be no member of the group `video`"
        return MissingError("no such camera", found=where, fix=fix)
    if stream:
        return MissingError("the stream does not open", where=where, fix="check its address with a player: ffplay URL")
    path = Path(where)
    return DataError(
        "cannot be opened as a video",
        where=where,
        found=f"{path.stat().st_size:,} bytes",
        fix=f"copy it again if it is cut short (.mp4 has its index at the end), or convert it: ffmpeg -i {path.name} out.mp4",
    )
