"""How fast COCO mask AP is, against a plain Python counter of the same definition, in the same run.

    python -m benchmarks.mask_ap [--images 10] [--edge 128] [--objects 20]

Both sides start from the same maps of object ids. The plain one, tests/metrics/oracles.py, holds objects as sets of pixels;
it takes the IoU of a pair anew at every threshold. Prints seconds and the ratio; the scores must be the same.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from segpipe.metrics.average_precision import AveragePrecisionCounter
from segpipe.metrics.instances import THRESHOLDS, InstanceMasks
from tests.metrics.oracles import PlainObject, pixels_of, plain_ap

Maps = tuple[np.ndarray, np.ndarray, dict[int, float]]


def draw(rng: np.random.Generator, edge: int, objects: int) -> Maps:
    """True and predicted ids of rectangles, and how sure each prediction is."""
    truth, prediction = np.zeros((2, edge, edge), np.uint16)
    for number in range(1, objects + 1):
        top, left, height, width = *rng.integers(0, edge - 10, 2), *rng.integers(5, edge // 5, 2)
        truth[top : top + height, left : left + width] = number
        if rng.random() < 0.9:
            top, left = top + int(rng.integers(0, 3)), left + int(rng.integers(0, 3))
            prediction[top : top + height, left : left + width] = number
    return truth, prediction, dict(enumerate(rng.random(objects + 1)))


def ours(images: list[Maps]) -> float:
    counter = AveragePrecisionCounter(1)
    for truth, prediction, scores in images:
        counter.add(InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction, scores))
    return counter.result().ap


def plain(images: list[Maps]) -> float:
    sides = [
        (
            [PlainObject(pixels_of(truth == i), 0) for i in np.unique(truth) if i],
            [PlainObject(pixels_of(prediction == i), 0, scores[int(i)]) for i in np.unique(prediction) if i],
        )
        for truth, prediction, scores in images
    ]
    return float(np.mean([plain_ap(sides, 0, threshold)[0] for threshold in THRESHOLDS]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--objects", type=int, default=20)
    wanted = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [draw(rng, wanted.edge, wanted.objects) for _ in range(wanted.images)]
    ours(images[:1])  # what is imported at the first call
    seconds, scores = [], []
    for side in (ours, plain):
        start = time.perf_counter()
        scores.append(side(images))
        seconds.append(time.perf_counter() - start)
    assert abs(scores[0] - scores[1]) < 1e-9, f"the scores must be the same, found {scores}"
    print(
        f"{wanted.images} images of {wanted.edge} x {wanted.edge} with up to {wanted.objects} objects: AP {scores[0]:.4f}"
    )
    print(f"segpipe       {seconds[0]:8.3f} s")
    print(f"plain Python  {seconds[1]:8.3f} s   {seconds[1] / seconds[0]:.0f} x")


if __name__ == "__main__":
    main()
