"""The score of a model while it trains: IoU over a whole split, by the same `Segmenter` that evaluates and serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import SegpipeError
from segpipe.inference.engines.engine import Batch, Engine
from segpipe.inference.input_contract.spec import input_spec
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_engine import network_engine, torch_engine
from segpipe.labels import Labelling
from segpipe.metrics import Counts, confusion, macro_in_truth, micro, tallies
from segpipe.samples import ClassTable
from segpipe.training.distributed.process_group import rank, sum_counts, world_size
from segpipe.training.plan import Plan, RecipePlan
from segpipe.training.sampling.crops import Reader
from segpipe.training.step import Stepper

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


@dataclass(frozen=True)
class Score:
    """The scores of a model over all counted pixels of a split, 0..1."""

    iou_macro: float
    """Mean over the classes that the split holds."""
    pixel_accuracy: float
    """Share of pixels with the right class or, if classes overlap, with exactly the right classes."""
    classes: int = 2
    """The number of classes that the split holds."""

    @property
    def can_choose(self) -> bool:
        """True if the split tells models apart: with a single class, a model that finds nothing is perfect."""
        return self.classes > 1


def score_confusion(counts: Counts, labelling: Labelling | None = None) -> Score:
    """Compute the scores of a confusion matrix.

    Args:
        counts: (n_labels, n_labels) pixels, by true and predicted label.
        labelling: the meaning of labels; None: class ids.

    Returns:
        The scores; 0 if nothing was counted.
    """
    tally = tallies(counts, labelling)
    scores = macro_in_truth("iou", tally), micro("recall", tallies(counts))
    iou, accuracy = (float(np.nan_to_num(value)) for value in scores)
    return Score(iou, accuracy, int(np.count_nonzero(tally[1])))


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


def write_input_spec(out: Path, fingerprint: Fingerprint) -> None:
    """Add what the training images are like to the segmenter.json of a finished model; only one of several processes writes.

    Args:
        out: the folder of the model.
        fingerprint: statistics of the training images.
    """
    if rank() == 0:
        SegmenterSpec.read(out).model_copy(update={"input": input_spec(fingerprint)}).write(out)


class FiniteEngine:
    """An engine that ends the training if the network's logits are not finite: their largest class would be a random one.

    Args:
        engine: the engine.
        plan: the plan of the training, for the error.
    """

    def __init__(self, engine: Engine, plan: RecipePlan) -> None:
        self.name, self._engine, self._plan = engine.name, engine, plan

    def __call__(self, batch: Batch) -> Batch:
        """Return the logits of a batch.

        Raises:
            SegpipeError: a logit is not finite.
        """
        logits = self._engine(batch)
        if not np.isfinite(logits).all():
            raise diverged("the logits of the network are not finite on the validation split", self._plan)
        return logits


def diverged(what: str, plan: RecipePlan) -> SegpipeError:
    """Return the error that ends a training whose numbers are of no use, with the settings that help.

    Args:
        what: what was seen.
        plan: the plan of the training.
    """
    rate = plan.recipe.learning_rate
    return SegpipeError(
        f"training diverged: {what}",
        where=plan.candidate,
        fix=f"set train.learning_rate to {rate / 4:g} (it is {rate:g}), or train.precision to fp32",
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
    return Segmenter(spec, FiniteEngine(engine, plan) if spec.task == "semantic" else engine)
