"""How fast confusion matrices are counted, against torchmetrics where it is installed and scikit-learn, in the same run.

    python benchmarks/confusion.py [--images 20] [--edge 1024] [--classes 11]

Prints milliseconds an image of each (median of several passes over the same masks, taking turns) and the ratios. Every library
gets the masks in the form that it takes; what it takes to bring uint8 into that form is counted, as it is in an evaluation.
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
        said, known = (torch.from_numpy(m.astype(np.int64)) for m in (prediction, truth))
        return multiclass_confusion_matrix(said, known, num_classes=n_classes, ignore_index=IGNORE).numpy()

    return count


def counters() -> dict[str, Count]:
    found: dict[str, Count] = {"segpipe": confusion}
    for name, make in {"torchmetrics": torchmetrics, "scikit-learn": scikit_learn}.items():
        try:
            found[name] = make()
        except ImportError:
            print(f"{name} is not installed: left out")
    return found


def ms_an_image(
    counters: dict[str, Count], masks: list[tuple[np.ndarray, np.ndarray]], n_classes: int, passes: int = 5
) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in counters}
    for _ in range(passes + 1):
        for name, count in counters.items():
            start = time.perf_counter()
            for truth, prediction in masks:
                count(truth, prediction, n_classes)
            taken[name].append(1000 * (time.perf_counter() - start) / len(masks))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


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
    found = counters()
    for name, count in found.items():
        same = all((count(*mask, wanted.classes) == confusion(*mask, wanted.classes)).all() for mask in masks[:3])
        assert same, f"{name} counts otherwise"
    ms = ms_an_image(found, masks, wanted.classes)
    print(f"{wanted.edge} x {wanted.edge} pixels, {wanted.classes} classes")
    for name, value in ms.items():
        print(f"{name:<13} {value:8.2f} ms an image   {value / ms['segpipe']:6.1f} x")


if __name__ == "__main__":
    main()
