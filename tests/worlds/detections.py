"""Detections of a detector."""

from __future__ import annotations

import numpy as np

from segpipe.inference.detector import Detections


def make_detections(*rows, edge=28):
    """Detections of (box, class, score) or (box, class, score, mask); by default a mask fills its box."""
    masks = [row[3] if len(row) > 3 else np.ones((edge, edge)) for row in rows]
    boxes, classes, scores = zip(*(row[:3] for row in rows), strict=True)
    return Detections(
        np.array(boxes, np.float32),
        np.array(classes, np.int64),
        np.array(scores, np.float32),
        np.array(masks, np.float32),
    )
