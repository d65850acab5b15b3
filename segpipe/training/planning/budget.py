"""The number of steps that fit into a time budget, after everything else that it has to cover.

A wall-clock budget covers `segpipe plan` and `segpipe train` together. Planning is charged by the clock. The rest is predicted from
what planning timed: the start of both commands, compiling, validations, checkpoints, and the choices made after the last step, which
use as many validation images as fit into their share of the budget.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.errors import ConfigError
from segpipe.inference.tta import relative_cost
from segpipe.samples import IGNORE, Prediction
from segpipe.training.finishing.cleaning_search import MIN_IMAGES, choose_cleaning
from segpipe.training.finishing.instance_search import MAX_IMAGES, best_instance_settings
from segpipe.training.finishing.postprocess_search import has_choices, searches_cleaning
from segpipe.training.sampling.distance import normalised_distance
from segpipe.training.speed.time_limits import SHORT_BUDGET_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from segpipe.inference.spec import SegmenterSpec
    from segpipe.samples import Sample
    from segpipe.training.plan import RecipePlan
    from segpipe.training.sampling.crops import Reader

COMMAND_S = 1.0
"""The start of Python and of the command line, and the end of a command."""
FIRST_BATCHES_S = 1.0
"""The part of the start of `train` that planning does not have: opening the curves and preparing the first batches."""
LAUNCH_S = 4.0
"""Additional start-up if the command starts the processes that share the training."""
MEMBER_START_S = 2.0
"""The start of each further member of an ensemble: its network, the first batches, its log."""
MIN_STEPS = 10
"""The least number of steps for which a wall-clock budget must suffice."""
CHECKPOINT_SHARE = 0.01
"""Time for checkpoints and metrics, as a share of the time of the steps."""
_DEFAULT_VALIDATIONS = 10
_MAX_VALIDATION_SHARE, _MAX_SHORT_VALIDATION_SHARE = 0.1, 0.05
"""Share of a wall-clock budget for validations, and of a short one."""
_MAX_FINISHING_SHARE = 0.04
"""Share of a wall-clock budget that the last validation and the choices after it may take, unless that is less than for `MIN_IMAGES`."""
_TIMED_IMAGES = 2
"""Validation images on which the choices for a finished network are timed."""


def count_steps(
    kind: str,
    amount: float,
    n_train: int,
    batch: int,
    ms_step: float,
    ms_val: float,
    overhead_s: float = 0.0,
    members: int = 1,
    validations: int | None = None,
    ms_last: float | None = None,
) -> tuple[int, int]:
    """Compute the numbers of steps and validations that fit into a budget.

    Args:
        kind: the unit of the budget: "seconds", "steps" or "epochs".
        amount: the budget in that unit.
        n_train: number of training images.
        batch: crops per step.
        ms_step: milliseconds per step.
        ms_val: milliseconds per validation.
        overhead_s: seconds that a budget of seconds has to cover in addition to steps, validations and checkpoints.
        members: networks that share the budget, one after another.
        validations: the number of validations that was set; None: as many as are affordable, at most ten.
        ms_last: milliseconds of the last validation; None: as all others.

    Returns:
        Steps and validations of each member.

    Raises:
        ConfigError: A wall-clock budget leaves fewer than `MIN_STEPS` steps. The score of such a model would be meaningless.
    """
    if kind != "seconds":
        steps = max(1, round((amount if kind == "steps" else amount * n_train / batch) / members))
        return steps, min(validations or _DEFAULT_VALIDATIONS, steps)
    ms_last = ms_val if ms_last is None else ms_last
    overhead_s += (members - 1) * MEMBER_START_S
    left_ms = max(0.0, amount - overhead_s) * 1000 / members
    share = _MAX_SHORT_VALIDATION_SHARE if amount < SHORT_BUDGET_S else _MAX_VALIDATION_SHARE
    further = (share * left_ms - ms_last) // max(ms_val, 1e-3)
    most = validations or int(min(_DEFAULT_VALIDATIONS, 1 + max(0.0, further)))
    for count in (most, validations or 1):
        steps = int((left_ms - (count - 1) * ms_val - ms_last) / (ms_step * (1 + CHECKPOINT_SHARE)))
        if steps >= MIN_STEPS:
            break
    if steps < MIN_STEPS:
        least_ms = ((validations or 1) - 1) * ms_val + ms_last + MIN_STEPS * ms_step * (1 + CHECKPOINT_SHARE)
        ms = ms_last if validations is None else ms_val
        raise ConfigError(
            "the budget is too short for any useful training",
            where="train.budget",
            found=f"{amount:.0f} s, which is {max(0, steps)} steps {'per member ' if members > 1 else ''}of {ms_step:.0f} ms, with "
            f"{ms / 1000:.1f} s for {'a validation' if validations is None else f'each of {validations} validations'}",
            expected=f"at least {math.ceil(overhead_s + members * least_ms / 1000)} s here",
            fix="increase it, or plan again when this machine is not busy with other work",
        )
    return steps, min(count, steps)


def mean_step_ms(full_ms: float, cheaper: Iterable[tuple[float, float]]) -> float:
    """Compute the mean milliseconds per step of a training whose first steps are cheaper.

    Args:
        full_ms: milliseconds of a full step.
        cheaper: for each reason, the share of the steps, from the first, that are cheaper, and their milliseconds. If several
            reasons apply to a step, their savings multiply.
    """
    total, start = 0.0, 0.0
    stretches = sorted((share, ms / full_ms) for share, ms in cheaper)
    for index, (share, _) in enumerate(stretches):
        total += (share - start) * full_ms * math.prod(factor for _, factor in stretches[index:])
        start = share
    return total + (1 - start) * full_ms


@dataclass(frozen=True)
class FinishingTime:
    """The milliseconds that the finished model takes for a validation image."""

    ms_last: float
    """Of the last validation."""
    ms_outputs: float = 0.0
    """Of the network after the last validation: 0 if the choices use the outputs of that validation."""
    ms_choices: float = 0.0
    """Of the choices, for each image that they use."""
    ms_imports: float = 0.0
    """Of the libraries that the choices need, once."""

    def seconds(self, images: int) -> float:
        """Predict the seconds after the last validation. images: validation images that are used."""
        return (self.ms_imports + self.ms_outputs * images + self.ms_choices * min(images, MAX_IMAGES)) / 1000

    def affordable_images(self, budget_s: float, images: int) -> int:
        """Return how many validation images can be used within the share of a budget that is for the finished model.

        Args:
            budget_s: the budget in seconds.
            images: the validation images that there are.
        """
        limit_ms = _MAX_FINISHING_SHARE * budget_s * 1000 - self.ms_imports
        ms_outputs = max(self.ms_last + self.ms_outputs, 1e-3)
        affordable = limit_ms / (ms_outputs + self.ms_choices)
        if affordable > MAX_IMAGES:
            affordable = (limit_ms - self.ms_choices * MAX_IMAGES) / ms_outputs
        return min(images, max(MIN_IMAGES, int(affordable)))


def finishing_time(
    plan: RecipePlan, spec: SegmenterSpec, val: Reader, ms_image: float, shares_outputs: bool = True
) -> FinishingTime:
    """Predict the time that the finished model takes.

    The choices are timed on a few images with the truth as the prediction, because an untrained network predicts more regions and
    instances than a trained one. The first image is used twice, because it brings imports.

    Args:
        plan: the plan of the training.
        spec: its specification for inference.
        val: the validation split.
        ms_image: milliseconds per image of the network as it serves, without test-time augmentation.
        shares_outputs: whether the choices use the outputs of the last validation.
    """
    if not has_choices(plan, val):
        return FinishingTime(ms_image)
    images: Any = [val[int(i)] for i in np.unique(np.linspace(0, len(val) - 1, _TIMED_IMAGES).astype(int))]
    truth: Any = _TruthSegmenter(spec, plan.postprocess == "distance")

    def choose(images: Any) -> float:
        started = time.perf_counter()
        if searches_cleaning(plan, val):
            choose_cleaning(truth, images, plan.recipe.class_weights, plan.seed)
        if plan.postprocess is not None:
            best_instance_settings(truth, images, plan.postprocess)
        return (time.perf_counter() - started) * 1000

    first_ms = choose(images[:1])
    ms_choices = choose(images) / len(images)
    runs = relative_cost(plan.recipe.tta, 3 if plan.volume else 2) - (1 if shares_outputs else 0)
    return FinishingTime(ms_image, runs * ms_image, ms_choices, max(0.0, first_ms - ms_choices))


@dataclass(frozen=True)
class _TruthSegmenter:
    """Replaces a `Segmenter` while choices are timed: its prediction for a sample is the truth."""

    spec: SegmenterSpec
    has_distance: bool

    def with_changes(self, **_: Any) -> _TruthSegmenter:
        """Return the same predictions, whatever the settings of instances."""
        return self

    def segment(self, sample: Sample, probabilities: bool = False, instances: bool = False) -> Prediction:
        """Return the true class ids, with probabilities of 0 and 1, or the true instances."""
        assert sample.labels is not None
        if instances:
            return Prediction(sample.labels, instances=sample.true_instances())
        ids = np.where(sample.labels == IGNORE, 0, sample.labels).astype(np.uint8)
        class_ids = np.arange(len(self.spec.classes)).reshape(-1, *[1] * ids.ndim)
        distance = (
            normalised_distance(ids, sample.instances) if self.has_distance and sample.instances is not None else None
        )
        return Prediction(ids, (ids == class_ids).astype(np.float32), distance=distance)
