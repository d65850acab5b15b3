"""The score of a model while it trains: IoU over a whole split, by the same `Segmenter` that evaluates and serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_engine import network_engine, torch_engine
from segpipe.labels import Labelling
from segpipe.metrics import Counts, confusion, macro, micro, tallies
from segpipe.samples import ClassTable
from segpipe.training.distributed.process_group import rank, sum_counts, world_size
from segpipe.training.plan import Plan, RecipePlan
from segpipe.training.sampling.crops import Reader
from segpipe.training.step import Stepper


@dataclass(frozen=True)
class Score:
    """The scores of a model over all counted pixels of a split, 0..1."""

    iou_macro: float
    """Mean over the classes that occur in truth or prediction."""
    pixel_accuracy: float
    """Share of pixels with the right class or, if classes overlap, with exactly the right classes."""


def score_confusion(counts: Counts, labelling: Labelling | None = None) -> Score:
    """Compute the scores of a confusion matrix.

    Args:
        counts: (n_labels, n_labels) pixels, by true and predicted label.
        labelling: the meaning of labels; None: class ids.

    Returns:
        The scores; 0 if nothing was counted.
    """
    scores = macro("iou", tallies(counts, labelling)), micro("recall", tallies(counts))
    return Score(*(float(np.nan_to_num(value)) for value in scores))


def score_split(segmenter: Segmenter, reader: Reader, indices: Iterable[int] | None = None) -> Score:
    """Score a segmenter on a split. If several processes train, they share the images.

    Args:
        segmenter: the model.
        reader: the split.
        indices: the images to use; None: all.
    """
    own_indices = list(range(len(reader)) if indices is None else indices)[rank() :: world_size()]
    counts = sum_counts(count_split(segmenter, reader, own_indices))
    return score_confusion(counts, segmenter.spec.classes.labelling)


def count_split(segmenter: Segmenter, reader: Reader, indices: Iterable[int]) -> Counts:
    """Compute the confusion matrix of a segmenter's labels on images of a split, with one image in memory at a time.

    Args:
        segmenter: the model.
        reader: the split.
        indices: the images to use.

    Returns:
        (n_labels, n_labels) int64: pixels by true and predicted label.
    """
    n_labels = segmenter.spec.classes.labelling.n_labels
    counts = np.zeros((n_labels, n_labels), np.int64)
    for index in indices:
        sample = reader[index]
        assert sample.labels is not None
        counts += confusion(sample.labels, segmenter.segment(sample).class_ids, n_labels)
    return counts


def segmenter_spec(plan: Plan, classes: ClassTable) -> SegmenterSpec:
    """Return segmenter.json of a plan: how its finished model is used.

    The origin of the initial weights is not part of it, because loading brings the trained weights.

    Args:
        plan: the plan of the training.
        classes: the classes of the dataset.
    """
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
        tta=plan.recipe.tta if isinstance(plan, RecipePlan) else "none",
        distance=plan.outputs.distance,
        dims=3 if grid else 2,
        patch3d=grid.patch if grid else None,
        spacing=grid.spacing if grid else None,
        lineage={"data": plan.data_hash, "plan": plan.sha256, "segpipe": __version__}
        | ({"parent": str(plan.options["encoder_weights"])} if plan.inherited else {}),
    )


def finished_segmenter(plan: RecipePlan, stepper: Stepper, classes: ClassTable) -> Segmenter:
    """Return the model that training would write now, as it is loaded from its folder, without test-time augmentation.

    Args:
        plan: the plan of the training.
        stepper: the network in training. The model has a copy of its running average.
        classes: the classes of the dataset.
    """
    spec = segmenter_spec(plan, classes)
    weights = {name: value.detach().cpu().clone() for name, value in stepper.average.state_dict().items()}
    engine = network_engine(spec, weights, stepper.fabric.device.type)
    return Segmenter(spec.model_copy(update={"tta": "none"}), engine)


def validation_segmenter(plan: RecipePlan, stepper: Stepper, classes: ClassTable) -> Segmenter:
    """Return the running average of the weights as a `Segmenter`, as fast as the training, without test-time augmentation.

    Args:
        plan: the plan of the training.
        stepper: the network in training.
        classes: the classes of the dataset.
    """
    setting = stepper.setting
    spec = segmenter_spec(plan, classes).model_copy(update={"tta": "none"})
    engine = torch_engine(
        spec.task, stepper.average, stepper.fabric.device, setting.precision == "bf16", setting.channels_last
    )
    return Segmenter(spec, engine)
