"""What a budget buys: steps out of minutes, once everything else that the minutes pay for is known.

A wall-clock budget is that of `segpipe plan` and `segpipe train` together. Planning is charged by the clock; the rest is predicted
from what planning timed: the start of both commands, compiling, validations, checkpoints, what is chosen after the last step.
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
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

START_UP_S = 10.0
"""From the start of the `train` command to the first step: imports, the network, the first batches."""
PLAN_START_S = 4.0
"""Of the `plan` command, before and after the making of the plan: the start of Python and of torch, and its end."""
LAUNCH_S = 4.0
"""More, where the command starts the processes that share the training: the start of Python and of torch, and their meeting."""
MEMBER_START_S = 2.0
"""Of each further member of an ensemble: its network, the first batches, its log."""
MIN_STEPS = 10
"""What a wall-clock budget must allow."""
CHECKPOINT_SHARE = 0.01
"""Of the time of the steps: writing checkpoints and metrics."""
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.1
_TRIED = 2
"""Validation images on which the work around a finished network is timed."""


def count_steps(
    kind: str,
    amount: float,
    n_train: int,
    batch: int,
    ms_step: float,
    ms_val: float,
    besides: float = 0.0,
    members: int = 1,
    looks: int | None = None,
) -> tuple[int, int]:
    """Steps and validations for a budget. Seconds include the start of the training, validations (at most a tenth, but one),
    checkpoints, and the seconds `besides`. members: networks that share the budget, one after another: steps are of each. looks: how
    many validations are asked for, whatever they take.

    Raises ConfigError where a wall-clock budget leaves fewer than `LEAST_STEPS` steps: a number that such a model earns says
    nothing of the model.
    """
    if kind != "seconds":
        steps = max(1, round((amount if kind == "steps" else amount * n_train / batch) / members))
        return steps, min(looks or _VALIDATIONS, steps)
    besides += START_UP_S + (members - 1) * MEMBER_START_S
    left = max(0.0, amount - besides) * 1000 / members
    validations = looks or int(min(_VALIDATIONS, max(1.0, _VALIDATION_SHARE * left // max(ms_val, 1e-3))))
    steps = int((left - validations * ms_val) / (ms_step * (1 + CHECKPOINT_SHARE)))
    if steps < MIN_STEPS:
        needed = besides + members * ((looks or 1) * ms_val + MIN_STEPS * ms_step * (1 + CHECKPOINT_SHARE)) / 1000
        raise ConfigError(
            "the budget is too short to learn anything",
            where="train.budget",
            found=f"{amount:.0f} s, which is {max(0, steps)} steps {'a member, ' if members > 1 else ''}of {ms_step:.0f} ms, beside "
            f"{ms_val / 1000:.1f} s for {'a validation' if looks is None else f'each of {looks} validations'}",
            expected=f"at least {math.ceil(needed)} s here",
            fix="give it more, or plan again when nothing else keeps this machine busy",
        )
    return steps, min(validations, steps)


def budget_seconds(wanted: TrainParams, ms_step: float) -> float:
    """About how long a budget lasts; an epoch is taken for 15 steps, since what is decided here is only how long to measure."""
    kind, amount = parse_budget(wanted.budget)
    return amount if kind == "seconds" else amount * ms_step / 1000 * (1 if kind == "steps" else 15)


def mean_step_ms(ms: float, cheaper: Iterable[tuple[float, float]]) -> float:
    """Milliseconds of a step, averaged over a training whose first steps are cheaper. ms: of a full step. cheaper: by reason, the
    share of the steps, from the first, that take so many milliseconds; where reasons meet, their savings multiply.
    """
    total, before = 0.0, 0.0
    stretches = sorted((share, own / ms) for share, own in cheaper)
    for place, (share, _) in enumerate(stretches):
        total += (share - before) * ms * math.prod(factor for _, factor in stretches[place:])
        before = share
    return total + (1 - before) * ms


def finishing_seconds(plan: Plan, spec: SegmenterSpec, val: Reader, ms_val: float, precision: str) -> float:
    """What comes after the last step: runs of the network over validation images, and the choices made of what it says.

    ms_val: of one look at the validation split by a training in this precision. The choices are timed on two images with the
    truth for a prediction, for what an untrained network says has more regions and objects than a trained one's.
    """
    assert plan.recipe is not None
    images = [val[int(i)] for i in np.unique(np.linspace(0, len(val) - 1, _TRIED).astype(int))]
    truth: Any = _Truth(spec, plan.postprocess == "distance")
    seconds = finishing_validations(plan, val, precision) * ms_val / 1000
    if searches_cleaning(plan, val):
        began = time.perf_counter()
        choose_cleaning(truth, images, plan.recipe.class_weights, plan.seed)  # type: ignore[arg-type]
        seconds += (time.perf_counter() - began) / len(images) * len(search_images(val))
    if plan.postprocess is not None and plan.postprocess != "detections":  # those a network has to make
        began = time.perf_counter()
        best_instance_settings(truth, images, plan.postprocess)  # type: ignore[arg-type]
        seconds += (time.perf_counter() - began) / len(images) * min(MAX_IMAGES, len(val))
    return seconds


@dataclass(frozen=True)
class _Truth:
    """In the place of a `Segmenter`: says what is true of a sample, at once."""

    spec: SegmenterSpec
    depth: bool

    def segment(self, sample: Sample, **_: Any) -> Prediction:
        """Class ids, and the probabilities of one who is sure."""
        assert sample.labels is not None
        ids = np.where(sample.labels == IGNORE, 0, sample.labels).astype(np.uint8)
        every = np.arange(len(self.spec.classes)).reshape(-1, *[1] * ids.ndim)
        depth = normalised_distance(ids, sample.instances) if self.depth and sample.instances is not None else None
        return Prediction(ids, (ids == every).astype(np.float32), distance=depth)
