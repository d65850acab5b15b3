"""The separation of a trained model's instances: the settings with the best F1 of instances on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError
from segpipe.inference.postprocess import Method, Postprocess, is_selected, select_instances, separate
from segpipe.inference.segmenter import Segmenter
from segpipe.metrics import micro
from segpipe.metrics.instances import InstanceCounts, InstanceMasks, count_instances
from segpipe.models.detection.mask_rcnn_config import MIN_SCORE
from segpipe.progress import say
from segpipe.samples import IGNORE, Instances, Sample

if TYPE_CHECKING:
    from segpipe.config import Candidate
    from segpipe.models.registry import Family
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

_HEIGHTS: dict[Method, tuple[float, ...]] = {
    "watershed": (0.5, 1.0, 2.0, 3.0, 5.0),
    "distance": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
}
"""Candidates for how far the distance must fall between two instances, by method."""
_MIN_SIZES = (0.0, 0.05, 0.1, 0.2)
"""Candidates for the smallest instance, as shares of the median true one."""
_MIN_SCORES = (0.5, MIN_SCORE, 0.4, 0.6, 0.7, 0.8, 0.9)
"""Candidates for the least score of a detection."""
_MIN_JOINED_SHARE = 0.25
MAX_IMAGES = 64
"""Validation images that are used."""


def choose_instance_method(
    candidate: Candidate, family: Family, has_instances: bool, overlapping: bool = False
) -> Method | None:
    """Choose how a candidate finds instances.

    Args:
        candidate: the candidate.
        family: its family.
        has_instances: whether the dataset has instances; without them, settings cannot be chosen.
        overlapping: whether the classes of the dataset overlap.

    Returns:
        The method; None if no instances are wanted.

    Raises:
        ConfigError: A detector is asked to derive instances from classes, the dataset has no instances, or a distance cannot be learned.
    """
    setting = candidate.postprocess
    if family.kind == "detector":
        if setting != "auto":
            raise ConfigError(
                f"{family.name} finds instances by itself",
                where="params.yaml: postprocess",
                found=setting,
                expected="auto",
            )
        return "detections"
    if setting == "off" or (setting == "auto" and not has_instances):
        return None
    if not has_instances:
        raise ConfigError(
            "the dataset has no instances on which the settings of postprocessing could be chosen",
            where="params.yaml: postprocess",
            found=setting,
            fix="import instances (COCO, label maps), or set it to auto",
        )
    if setting == "distance" and (family.kind == "classical" or overlapping):
        raise ConfigError(
            f"{family.name} is a classical family and cannot learn a distance"
            if family.kind == "classical"
            else "distances of overlapping classes would overlap too",
            where="params.yaml: postprocess",
            found=setting,
            expected="auto, watershed, components or off",
        )
    return "watershed" if setting == "auto" else setting


def choose_instance_settings(plan: Plan, segmenter: Segmenter, val: Reader) -> Segmenter:
    """Choose how a trained model separates instances.

    Args:
        plan: the plan of the training, with a method that finds instances.
        segmenter: the model.
        val: the validation split, or the images of it that are used.

    Returns:
        The model with these settings.
    """
    assert plan.postprocess is not None, "the plan has a method"
    postprocess, f1 = best_instance_settings(segmenter, val, plan.postprocess)
    settings = postprocess.model_dump(include={"h", "min_size", "min_score"})
    listed = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    say(f"{plan.candidate}: instances by {postprocess.method} ({listed}): val F1 of instances {f1:.3f}")
    return segmenter.with_changes(postprocess=postprocess)


def best_instance_settings(segmenter: Segmenter, val: Reader, method: Method) -> tuple[Postprocess, float]:
    """Find the settings of a method with the best F1 of instances at IoU 0.5, on up to 64 images.

    Each image is segmented once.

    Args:
        segmenter: the trained model.
        val: the validation split.
        method: how instances are found.

    Returns:
        The settings, and their F1; of equal ones the first of a fixed grid.
    """
    n_classes = len(segmenter.spec.classes)
    indices = [int(i) for i in np.unique(np.linspace(0, len(val) - 1, MAX_IMAGES).astype(int))]
    samples = [val[i] for i in indices]
    median, together = _median_area(samples), () if method == "detections" else joined_classes(samples, n_classes)
    min_scores = _MIN_SCORES if method == "detections" else (0.0,)
    grid = [
        Postprocess(method=method, h=h, min_size=round(size * median), min_score=score, together=together)
        for h, size, score in product(_HEIGHTS.get(method, (0.0,)), _MIN_SIZES, min_scores)
    ]
    totals: dict[Postprocess, InstanceCounts] = {}
    for index in indices:
        sample = val[index]
        assert sample.labels is not None
        truth, ignored = InstanceMasks.from_instances(sample.true_instances()), sample.labels == IGNORE
        for h, instances in _separated(segmenter, sample, method, together):
            ids, areas = instances.ids.astype(np.int32), instances.areas()
            scores: dict[bytes, InstanceCounts] = {}  # most settings select the same instances of an image
            for settings in (settings for settings in grid if settings.h == h):
                selection = is_selected(areas, instances.scores, settings)
                score = scores.get(selection.tobytes())
                if score is None:
                    selected = select_instances(ids, instances.classes, instances.scores, areas, settings)
                    score = count_instances(truth, InstanceMasks.from_instances(selected), n_classes, ignored)
                    scores[selection.tobytes()] = score
                totals[settings] = totals[settings] + score if settings in totals else score
    f1 = {settings: float(np.nan_to_num(micro("dice", totals[settings].tallies[0]))) for settings in grid}
    best = max(grid, key=lambda settings: f1[settings])
    return best, f1[best]


def _separated(
    segmenter: Segmenter, sample: Sample, method: Method, together: tuple[tuple[int, ...], ...]
) -> Iterator[tuple[float, Instances]]:
    """Yield all instances of an image for each height of the watershed, however small or uncertain they are."""
    if method == "detections":
        permissive = Postprocess(method=method, min_score=MIN_SCORE)
        detections = segmenter.with_changes(postprocess=permissive).segment(sample, instances=True).instances
        assert detections is not None, "a detector finds instances"
        yield 0.0, detections
        return
    prediction = segmenter.segment(sample, probabilities=True)
    assert prediction.probabilities is not None, "they were requested"
    for h in _HEIGHTS.get(method, (0.0,)):
        settings = Postprocess(method=method, h=h, together=together)
        yield h, separate(prediction.class_ids, prediction.probabilities, settings, prediction.distance)


def joined_classes(samples: list[Sample], n_classes: int) -> tuple[tuple[int, ...], ...]:
    """Find the classes that form instances together, such as cytoplasm and nucleus of a cell.

    Two classes belong together if at least a quarter of the instances that contain the rarer of them contain both.

    Args:
        samples: labelled samples with instances.
        n_classes: the number of classes.

    Returns:
        Sets of two or more class ids; background is in none.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    both = np.zeros((n_classes, n_classes), np.int64)
    for sample in samples:
        assert sample.labels is not None and sample.instances is not None, (
            "a labelled sample of a dataset with instances"
        )
        counted = (sample.instances > 0) & (sample.labels > 0) & (sample.labels < n_classes)
        pairs = np.unique(np.stack([sample.instances[counted], sample.labels[counted]], 1).astype(np.int64), axis=0)
        instance_ids, rows = np.unique(pairs[:, 0], return_inverse=True)
        contains = np.zeros((len(instance_ids), n_classes), np.int64)
        contains[rows, pairs[:, 1]] = 1
        both += contains.T @ contains
    single = np.diag(both)
    share = both / np.maximum(np.minimum(single[:, None], single[None]), 1)
    np.fill_diagonal(share, 0)
    _, groups = connected_components(csr_array(share >= _MIN_JOINED_SHARE), directed=False)
    sets = (tuple(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups))
    return tuple(members for members in sets if len(members) > 1)


def _median_area(samples: list[Sample]) -> float:
    areas = np.concatenate([np.empty(0, np.int64), *(sample.true_instances().areas() for sample in samples)])
    return float(np.median(areas)) if len(areas) else 0.0
