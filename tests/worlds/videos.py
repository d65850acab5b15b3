"""Short videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def frames_of(path: Path) -> list[np.ndarray]:
    """Read the frames of a video, (H, W, 3), BGR."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1])
    capture.release()
    return frames


def clip(path: Path, count: int = 7, height: int = 38, width: int = 50) -> Path:
    """Write a video of moving blobs."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8 + 2, width // 8 + 2 + count, 3)).astype(np.uint8)
    windows = [coarse[:, i : i + width // 8 + 2] for i in range(count)]
    return write_video(path, [np.kron(w, np.ones((8, 8, 1), np.uint8))[:height, :width] for w in windows])


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    """Write pictures (H, W, 3), BGR, as a lossless video of 12 frames a second."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 12.0, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture))
    writer.release()
    return path
