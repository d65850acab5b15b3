"""The number of steps that fit into a time budget, after everything else that it has to cover.

A wall-clock budget covers `segpipe plan` and `segpipe train` together. Planning is charged by the clock. The rest is predicted from
what planning timed: the start of both commands, compiling, validations, checkpoints, and the choices made after the last step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import TrainParams, parse_budget
from segpipe.errors import ConfigError
from segpipe.samples import IGNORE, Prediction
from segpipe.training.finishing.cleaning_search import choose_cleaning, search_images
from segpipe.training.finishing.instance_search import MAX_IMAGES, best_instance_settings
from segpipe.training.finishing.postprocess_search import finishing_validations, searches_cleaning
from segpipe.training.sampling.distance import normalised_distance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from segpipe.inference.spec import SegmenterSpec
    from segpipe.samples import Sample
    from segpipe.training.plan import RecipePlan
    from segpipe.training.sampling.crops import Reader

START_UP_S = 10.0
"""From the start of the `train` command to the first step: imports, the network, the first batches."""
PLAN_START_S = 4.0
"""The start of the `plan` command (Python and torch), and its end."""
LAUNCH_S = 4.0
"""Additional start-up if the command starts the processes that share the training."""
MEMBER_START_S = 2.0
"""The start of each further member of an ensemble: its network, the first batches, its log."""
MIN_STEPS = 10
"""The least number of steps for which a wall-clock budget must suffice."""
CHECKPOINT_SHARE = 0.01
"""Time for checkpoints and metrics, as a share of the time of the steps."""
_DEFAULT_VALIDATIONS = 10
_MAX_VALIDATION_SHARE = 0.1
_TIMED_IMAGES = 2
"""Validation images on which the choices for a finished network are timed."""
_STEPS_PER_EPOCH = 15
"""A rough value for `budget_seconds`."""


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
) -> tuple[int, int]:
    """Compute the numbers of steps and validations that fit into a budget.

    Args:
        kind: the unit of the budget: "seconds", "steps" or "epochs".
        amount: the budget in that unit.
        n_train: number of training images.
        batch: crops per step.
        ms_step: milliseconds per step.
        ms_val: milliseconds per validation.
        overhead_s: seconds that a budget of seconds has to cover in addition to the start of the training, validations (at most a tenth,
            but at least one) and checkpoints.
        members: networks that share the budget, one after another.
        validations: the number of validations that was set; None: as many as are affordable, at most ten.

    Returns:
        Steps and validations of each member.

    Raises:
        ConfigError: A wall-clock budget leaves fewer than `MIN_STEPS` steps. The score of such a model would be meaningless.
    """
    if kind != "seconds":
        steps = max(1, round((amount if kind == "steps" else amount * n_train / batch) / members))
        return steps, min(validations or _DEFAULT_VALIDATIONS, steps)
    overhead_s += START_UP_S + (members - 1) * MEMBER_START_S
    left_ms = max(0.0, amount - overhead_s) * 1000 / members
    affordable = int(min(_DEFAULT_VALIDATIONS, max(1.0, _MAX_VALIDATION_SHARE * left_ms // max(ms_val, 1e-3))))
    count = validations or affordable
    steps = int((left_ms - count * ms_val) / (ms_step * (1 + CHECKPOINT_SHARE)))
    if steps < MIN_STEPS:
        least_ms = (validations or 1) * ms_val + MIN_STEPS * ms_step * (1 + CHECKPOINT_SHARE)
        raise ConfigError(
            "the budget is too short for any useful training",
            where="train.budget",
            found=f"{amount:.0f} s, which is {max(0, steps)} steps {'per member ' if members > 1 else ''}of {ms_step:.0f} ms, with "
            f"{ms_val / 1000:.1f} s for {'a validation' if validations is None else f'each of {validations} validations'}",
            expected=f"at least {math.ceil(overhead_s + members * least_ms / 1000)} s here",
            fix="increase it, or plan again when this machine is not busy with other work",
        )
    return steps, min(count, steps)


def budget_seconds(settings: TrainParams, ms_step: float) -> float:
    """Estimate how many seconds a budget lasts. It only decides how long to measure, so an epoch is taken as 15 steps."""
    kind, amount = parse_budget(settings.budget)
    return amount if kind == "seconds" else amount * ms_step / 1000 * (1 if kind == "steps" else _STEPS_PER_EPOCH)


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


def finishing_seconds(plan: RecipePlan, spec: SegmenterSpec, val: Reader, ms_val: float, precision: str) -> float:
    """Predict the seconds after the last step: the network's outputs for validation images, and the choices based on them.

    The choices are timed on two images with the truth as the prediction, because an untrained network predicts more regions and
    instances than a trained one.

    Args:
        plan: the plan of the training.
        spec: its specification for inference.
        val: the validation split.
        ms_val: milliseconds per validation of a training in this precision.
        precision: "fp32", "bf16" or "fp16".
    """
    images: Any = [val[int(i)] for i in np.unique(np.linspace(0, len(val) - 1, _TIMED_IMAGES).astype(int))]
    truth: Any = _TruthSegmenter(spec, plan.postprocess == "distance")
    seconds = finishing_validations(plan, val, precision) * ms_val / 1000
    if searches_cleaning(plan, val):
        started = time.perf_counter()
        choose_cleaning(truth, images, plan.recipe.class_weights, plan.seed)
        seconds += (time.perf_counter() - started) / len(images) * len(search_images(val))
    if plan.postprocess is not None and plan.postprocess != "detections":  # which only a detector can make
        started = time.perf_counter()
        best_instance_settings(truth, images, plan.postprocess)
        seconds += (time.perf_counter() - started) / len(images) * min(MAX_IMAGES, len(val))
    return seconds


@dataclass(frozen=True)
class _TruthSegmenter:
    """Replaces a `Segmenter` while choices are timed: its prediction for a sample is the truth."""

    spec: SegmenterSpec
    has_distance: bool

    def segment(self, sample: Sample, **_: Any) -> Prediction:
        """Return the true class ids, with probabilities of 0 and 1."""
        assert sample.labels is not None
        ids = np.where(sample.labels == IGNORE, 0, sample.labels).astype(np.uint8)
        class_ids = np.arange(len(self.spec.classes)).reshape(-1, *[1] * ids.ndim)
        distance = (
            normalised_distance(ids, sample.instances) if self.has_distance and sample.instances is not None else None
        )
        return Prediction(ids, (ids == class_ids).astype(np.float32), distance=distance)
