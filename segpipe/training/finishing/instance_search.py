"""How a trained model's objects are told apart: the settings with the best F1 of objects on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError
from segpipe.inference.postprocess import Method, Postprocess, chosen, separate
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.trained import load_trained
from segpipe.metrics import micro
from segpipe.metrics.instances import Objects, ObjectScore, object_score
from segpipe.models.detection.config import LEAST_SCORE
from segpipe.progress import say
from segpipe.samples import IGNORE, Instances, Sample

if TYPE_CHECKING:
    from pathlib import Path

    from segpipe.config import Candidate
    from segpipe.models.registry import Family
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

_HEIGHTS: dict[Method, tuple[float, ...]] = {
    "watershed": (0.5, 1.0, 2.0, 3.0, 5.0),
    "distance": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
}
_SIZES = (0.0, 0.05, 0.1, 0.2)
"""Smallest objects, as shares of the median true one."""
_SURE = (0.5, LEAST_SCORE, 0.4, 0.6, 0.7, 0.8, 0.9)
_JOINED = 0.25
MAX_IMAGES = 64
"""Validation images, at most."""


def choose_instance_method(candidate: Candidate, of: Family, objects: bool, overlapping: bool = False) -> Method | None:
    """How a candidate finds objects. objects: whether the dataset has any; without them there is nothing to choose settings by.
    overlapping: whether its classes overlap.

    Raises ConfigError where a detector is asked to take objects from classes, the dataset has no objects, or a distance can't be
    learned.
    """
    wanted = candidate.postprocess
    if of.kind == "detector":
        if wanted != "auto":
            raise ConfigError(
                f"{of.name} finds objects by itself", where="params.yaml: postprocess", found=wanted, expected="auto"
            )
        return "detections"
    if wanted == "off" or (wanted == "auto" and not objects):
        return None
    if not objects:
        raise ConfigError(
            "the dataset has no objects to choose the settings of postprocessing by",
            where="params.yaml: postprocess",
            found=wanted,
            fix="import objects (COCO, label maps), or set it to auto",
        )
    if wanted == "distance" and (of.kind == "classical" or overlapping):
        raise ConfigError(
            f"{of.name} is fitted, and learns no distance"
            if of.kind == "classical"
            else "where classes overlap, so do distances",
            where="params.yaml: postprocess",
            found=wanted,
            expected="auto, watershed, components or off",
        )
    return "watershed" if wanted == "auto" else wanted


def choose_instance_settings(plan: Plan, model: Path, val: Reader) -> None:
    """Choose how objects are told apart by the trained model in a folder, and write it into its segmenter.json."""
    if plan.postprocess is None:
        return
    segmenter = load_trained(model)
    how, f1 = best_instance_settings(segmenter, val, plan.postprocess)
    segmenter.spec.model_copy(update={"postprocess": how}).write(model)
    words = ", ".join(
        f"{name} {value:g}" for name, value in how.model_dump(include={"h", "min_size", "min_score"}).items()
    )
    say(f"{plan.candidate}: objects by {how.method} ({words}): val F1 of objects {f1:.3f}")


def best_instance_settings(segmenter: Segmenter, val: Reader, method: Method) -> tuple[Postprocess, float]:
    """The settings of a method with the largest F1 at IoU 0.5 of the objects of up to 64 images, and that F1; of equal ones the
    first of a fixed grid. Each image is segmented once.
    """
    n_classes = len(segmenter.spec.classes)
    places = [int(i) for i in np.unique(np.linspace(0, len(val) - 1, MAX_IMAGES).astype(int))]
    samples = [val[i] for i in places]
    median, together = _median_area(samples), () if method == "detections" else joined_classes(samples, n_classes)
    grid = [
        Postprocess(method=method, h=h, min_size=round(size * median), min_score=sure, together=together)
        for h, size, sure in product(_HEIGHTS.get(method, (0.0,)), _SIZES, _SURE if method == "detections" else (0.0,))
    ]
    totals: dict[Postprocess, ObjectScore] = {}
    for place in places:
        sample = val[place]
        assert sample.labels is not None
        truth, ignored = Objects.from_instances(sample.objects()), sample.labels == IGNORE
        for h, every in _told_apart(segmenter, sample, method, together):
            for how in (how for how in grid if how.h == h):
                kept = chosen(every.ids.astype(np.int32), every.classes, every.scores, every.areas(), how)
                score = object_score(truth, Objects.from_instances(kept), n_classes, ignored)
                totals[how] = totals[how] + score if how in totals else score
    f1 = {how: float(np.nan_to_num(micro("dice", totals[how].tallies[0]))) for how in grid}
    best = max(grid, key=lambda how: f1[how])
    return best, f1[best]


def _told_apart(
    segmenter: Segmenter, sample: Sample, method: Method, together: tuple[tuple[int, ...], ...]
) -> Iterator[tuple[float, Instances]]:
    """All objects, however small or unsure, by height."""
    if method == "detections":
        loose = Postprocess(method=method, min_score=LEAST_SCORE)
        found = segmenter.but(postprocess=loose).segment(sample, instances=True).instances
        assert found is not None, "a detector finds objects"
        yield 0.0, found
        return
    said = segmenter.segment(sample, probabilities=True)
    assert said.probabilities is not None, "asked for"
    for h in _HEIGHTS.get(method, (0.0,)):
        how = Postprocess(method=method, h=h, together=together)
        yield h, separate(said.class_ids, said.probabilities, how, said.distance)


def joined_classes(samples: list[Sample], n_classes: int) -> tuple[tuple[int, ...], ...]:
    """The classes that make up objects with each other: sets of class ids, background left out, each of two or more.

    Two classes belong together where at least `_JOINED` of the objects that hold the rarer of them hold both.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    both = np.zeros((n_classes, n_classes), np.int64)
    for sample in samples:
        assert sample.labels is not None and sample.instances is not None, "a labelled sample of a dataset with objects"
        counted = (sample.instances > 0) & (sample.labels > 0) & (sample.labels < n_classes)
        pairs = np.unique(np.stack([sample.instances[counted], sample.labels[counted]], 1).astype(np.int64), axis=0)
        objects, rows = np.unique(pairs[:, 0], return_inverse=True)
        holds = np.zeros((len(objects), n_classes), np.int64)
        holds[rows, pairs[:, 1]] = 1
        both += holds.T @ holds
    alone = np.diag(both)
    share = both / np.maximum(np.minimum(alone[:, None], alone[None]), 1)
    np.fill_diagonal(share, 0)
    _, groups = connected_components(csr_array(share >= _JOINED), directed=False)
    sets = (tuple(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups))
    return tuple(members for members in sets if len(members) > 1)


def _median_area(samples: list[Sample]) -> float:
    areas = np.concatenate([np.empty(0, np.int64), *(sample.objects().areas() for sample in samples)])
    return float(np.median(areas)) if len(areas) else 0.0
