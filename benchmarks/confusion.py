"""How fast confusion matrices are counted, against torchmetrics where it is installed, else scikit-learn, in the same run.

    python benchmarks/confusion.py [--images 20] [--edge 1024] [--classes 11]

Prints milliseconds an image of each (median of several passes over the same masks) and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from segpipe.metrics import confusion
from segpipe.samples import IGNORE

Count = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def scikit_learn() -> Count:
    from sklearn.metrics import confusion_matrix

    def count(truth: np.ndarray, prediction: np.ndarray, n_classes: int) -> np.ndarray:
        kept = truth != IGNORE
        return confusion_matrix(truth[kept], prediction[kept], labels=range(n_classes))

    return count


def torchmetrics() -> Count:
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    def count(truth: np.ndarray, prediction: np.ndarray, n_classes: int) -> np.ndarray:
        pair = (torch.from_numpy(m.astype(np.int64)) for m in (prediction, truth))
        return multiclass_confusion_matrix(*pair, num_classes=n_classes, ignore_index=IGNORE).numpy()

    return count


def other() -> tuple[str, Count]:
    try:
        return "torchmetrics", torchmetrics()
    except ImportError:
        return "scikit-learn", scikit_learn()


def ms_an_image(count: Count, masks: list[tuple[np.ndarray, np.ndarray]], n_classes: int, passes: int = 5) -> float:
    def once() -> float:
        start = time.perf_counter()
        for truth, prediction in masks:
            count(truth, prediction, n_classes)
        return 1000 * (time.perf_counter() - start) / len(masks)

    once()
    return statistics.median(once() for _ in range(passes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=11)
    wanted = parser.parse_args()
    rng = np.random.default_rng(0)
    size = (wanted.images, wanted.edge, wanted.edge)
    truth, prediction = rng.integers(0, wanted.classes, (2, *size)).astype(np.uint8)
    truth[:, : wanted.edge // 20] = IGNORE
    masks = list(zip(truth, prediction, strict=True))
    name, theirs = other()
    for mask in masks:
        assert (confusion(*mask, wanted.classes) == theirs(*mask, wanted.classes)).all(), "the counts must be the same"
    ours_ms, theirs_ms = (ms_an_image(count, masks, wanted.classes) for count in (confusion, theirs))
    print(f"segpipe       {ours_ms:8.2f} ms an image ({wanted.edge} x {wanted.edge}, {wanted.classes} classes)")
    print(f"{name:<13} {theirs_ms:8.2f} ms an image")
    print(f"ratio         {theirs_ms / ours_ms:8.1f} x")


if __name__ == "__main__":
    main()
