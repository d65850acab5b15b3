"""Read frames from a file, a camera or a stream, with OpenCV."""

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
"""(H, W, 3), in OpenCV's BGR order."""

_DEFAULT_RATE = 30.0
"""Frames per second if the source gives no valid rate, as many cameras do."""
_MAX_RATE = 1000.0
_MAX_FRAMES = 1 << 40
"""Headers with more frames are wrong."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    index: int
    """Index from 0, including frames that were dropped."""
    image: Picture
    read_at: float
    """`time.perf_counter()` when it had been read."""
    decode_s: float
    """Duration of reading it, in seconds; for a camera this includes the wait for the next frame."""


class Video:
    """An open video, read by a single thread.

    Args:
        capture: OpenCV's handle.
        name: Name for outputs and errors.
        live: True for a camera or a stream, False for a file.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str, live: bool) -> None:
        self._capture, self.name, self.live = capture, name, live
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 0 < rate <= _MAX_RATE else _DEFAULT_RATE
        """Frames per second."""
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.promised = int(count) if not live and 0 < count < _MAX_FRAMES else None
        """Number of frames according to the file's header; None if it has none, and for cameras and streams."""
        self._index = 0

    def read(self) -> Frame | None:
        """Read the next frame; None at the end."""
        began = time.perf_counter()
        success, image = self._capture.read()
        if not success:
            return None
        now = time.perf_counter()
        frame = Frame(self._index, image, now, now - began)
        self._index += 1
        return frame

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()


def open_video(where: str, limits: DataParams) -> Video:
    """Open a video.

    Args:
        where: Path of a file, number of a camera (`0`) or URL of a stream (`rtsp://...`).
        limits: The maximum number of pixels of a frame.

    Raises:
        MissingError: There is no such file, camera or stream.
        DataError: The file is not a video, or its frames are too large.
    """
    camera, stream = where.isdecimal(), "://" in where
    path = Path(where)
    if not camera and not stream and not path.is_file():
        raise MissingError(
            "no such video", where=where, fix="give a file, the number of a camera (0) or the URL of a stream"
        )
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # our errors replace OpenCV's warnings
    capture = cv2.VideoCapture(int(where) if camera else where)
    if not capture.isOpened():
        raise _open_error(where, camera, stream)
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


def _open_error(where: str, camera: bool, stream: bool) -> SegpipeError:
    if camera:
        fix = (
            "list the cameras with `ls /dev/video*`; close other programs that use the camera; "
            "check that you are a member of the group `video`"
        )
        return MissingError("no such camera", found=where, fix=fix)
    if stream:
        return MissingError(
            "the stream cannot be opened", where=where, fix="test its address with a player: ffplay URL"
        )
    path = Path(where)
    return DataError(
        "cannot be opened as a video",
        where=where,
        found=f"{path.stat().st_size:,} bytes",
        fix=f"copy it again if it is incomplete (.mp4 has its index at the end), or convert it: ffmpeg -i {path.name} out.mp4",
    )
