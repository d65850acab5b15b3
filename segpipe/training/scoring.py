"""How good a model is while it trains: IoU over a whole split, through the same `Segmenter` that evaluates and serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_network import torch_engine
from segpipe.labels import Labelling
from segpipe.metrics import Counts, confusion, macro, micro, tallies
from segpipe.samples import ClassTable
from segpipe.training.distributed.process_group import rank, sum_counts, world_size
from segpipe.training.plan import Plan
from segpipe.training.sampling.crops import Reader
from segpipe.training.step import Stepper


@dataclass(frozen=True)
class Score:
    """Over all counted pixels of a split: macro IoU (classes in neither truth nor prediction left out), and the share of pixels that
    got their class or, where classes overlap, all of their classes and no other."""

    iou_macro: float
    pixel_accuracy: float


def score_confusion(counts: Counts, labelling: Labelling | None = None) -> Score:
    """Scores of a confusion matrix of labels (of class ids, where no labelling is given); 0 where nothing was counted."""
    scores = macro("iou", tallies(counts, labelling)), micro("recall", tallies(counts))
    return Score(*(float(np.nan_to_num(value)) for value in scores))


def score_split(segmenter: Segmenter, reader: Reader, indices: Iterable[int] | None = None) -> Score:
    """Scores of a segmenter on a split (or on some of its images), dealt out among the ranks."""
    mine = list(range(len(reader)) if indices is None else indices)[rank() :: world_size()]
    return score_confusion(sum_counts(count_split(segmenter, reader, mine)), segmenter.spec.classes.labelling)


def count_split(segmenter: Segmenter, reader: Reader, indices: Iterable[int]) -> Counts:
    """The confusion matrix of a segmenter's labels on images of a split, one image in memory at a time."""
    n_labels = segmenter.spec.classes.labelling.n_labels
    counts = np.zeros((n_labels, n_labels), np.int64)
    for index in indices:
        sample = reader[index]
        assert sample.labels is not None
        counts += confusion(sample.labels, segmenter.segment(sample).class_ids, n_labels)
    return counts


def segmenter_spec(plan: Plan, classes: ClassTable) -> SegmenterSpec:
    """segmenter.json of a plan. Where the first weights came from is no part of it: loading brings its own."""
    from segpipe import __version__

    grid = plan.volume
    return SegmenterSpec(
        candidate=plan.candidate,
        family=plan.family,
        task="instance" if plan.model_family.kind == "detector" else "semantic",
        options={key: value for key, value in plan.options.items() if key != "encoder_weights"},
        classes=classes,
        normalisation=plan.normalisation,
        stride=plan.stride,
        tta=plan.recipe.tta if plan.recipe else "none",
        distance=plan.outputs.distance,
        dims=3 if grid else 2,
        patch3d=grid.patch if grid else None,
        spacing=grid.spacing if grid else None,
        lineage={"data": plan.data_hash, "plan": plan.sha256, "segpipe": __version__}
        | ({"parent": str(plan.options["encoder_weights"])} if plan.inherited else {}),
    )


def validation_segmenter(plan: Plan, stepper: Stepper, classes: ClassTable) -> Segmenter:
    """The running average of weights as a `Segmenter`, computed as fast as the training is, and once an image."""
    setting = stepper.setting
    spec = segmenter_spec(plan, classes).model_copy(update={"tta": "none"})
    how = (stepper.fabric.device, setting.precision == "bf16", setting.channels_last)
    return Segmenter(spec, torch_engine(spec.task, stepper.average, *how))
