"""Speed of confusion matrices, compared with scikit-learn and (if it is installed) torchmetrics in the same run.

    python benchmarks/confusion.py [--images 20] [--edge 1024] [--classes 11]

Prints milliseconds per image of each library (the median of several alternating passes over the same masks) and the ratios. The
conversion of uint8 masks to the type that a library needs is included, as in an evaluation.
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
        counted = truth != IGNORE
        return confusion_matrix(truth[counted], prediction[counted], labels=range(n_classes))

    return count


def torchmetrics() -> Count:
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    def count(truth: np.ndarray, prediction: np.ndarray, n_classes: int) -> np.ndarray:
        predicted, true = (torch.from_numpy(m.astype(np.int64)) for m in (prediction, truth))
        return multiclass_confusion_matrix(predicted, true, num_classes=n_classes, ignore_index=IGNORE).numpy()

    return count


def counters() -> dict[str, Count]:
    available: dict[str, Count] = {"segpipe": confusion}
    for name, make in {"torchmetrics": torchmetrics, "scikit-learn": scikit_learn}.items():
        try:
            available[name] = make()
        except ImportError:
            print(f"{name} is not installed: left out")
    return available


def ms_per_image(
    counters: dict[str, Count], masks: list[tuple[np.ndarray, np.ndarray]], n_classes: int, passes: int = 5
) -> dict[str, float]:
    milliseconds: dict[str, list[float]] = {name: [] for name in counters}
    for _ in range(passes + 1):
        for name, count in counters.items():
            start = time.perf_counter()
            for truth, prediction in masks:
                count(truth, prediction, n_classes)
            milliseconds[name].append(1000 * (time.perf_counter() - start) / len(masks))
    return {name: statistics.median(times[1:]) for name, times in milliseconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=11)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    size = (arguments.images, arguments.edge, arguments.edge)
    truth, prediction = rng.integers(0, arguments.classes, (2, *size)).astype(np.uint8)
    truth[:, : arguments.edge // 20] = IGNORE
    masks = list(zip(truth, prediction, strict=True))
    available = counters()
    for name, count in available.items():
        same = all((count(*mask, arguments.classes) == confusion(*mask, arguments.classes)).all() for mask in masks[:3])
        assert same, f"{name} has another result"
    ms = ms_per_image(available, masks, arguments.classes)
    print(f"{arguments.edge} x {arguments.edge} pixels, {arguments.classes} classes")
    for name, value in ms.items():
        print(f"{name:<13} {value:8.2f} ms per image   {value / ms['segpipe']:6.1f} x")


if __name__ == "__main__":
    main()
