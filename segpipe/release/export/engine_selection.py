"""Choose the inference engine of a bundle: every engine segments the golden images, is compared with the trained network, and is
timed. The fastest engine that agrees with the network is chosen.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from segpipe.errors import GateBlocked, MissingError, SegpipeError
from segpipe.inference.engines.engine import Engine, precision_is_native
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec

Mask = npt.NDArray[np.uint8]
Loader = Callable[[], Engine]
"""Loads a graph into an engine."""

_ROUNDS = 9
_FIRST_ROUNDS = 3
_HOPELESS = 1.5
"""After the first rounds, only eligible engines whose time is within this factor of the fastest of them are timed again."""
_MAX_TIMING_S = 20.0
_SETTLE_S = 0.1
_SPEED_TOLERANCE = 1.10
"""Engines whose time is within this factor of the fastest count as equally fast, so that the choice does not depend on noise."""


class EngineTrial(BaseModel):
    """The result of one engine on the golden images."""

    engine: str
    median_ms: float | None = None
    """Duration of a whole `predict` of the first golden image."""
    agreement: float | None = None
    """Fraction of golden pixels that have the class that the trained network gives."""
    eligible: bool
    """True if the engine may be chosen for serving."""
    reason: str
    """Why it may or may not, as the second half of a sentence that begins with the engine."""


Judge = Callable[[str, Segmenter, float], EngineTrial]
"""(engine, the model on that engine, agreement) -> the trial, which says whether the engine is eligible."""


@dataclass
class EngineComparison:
    """A comparison of engines with the trained network, in the order in which they are added."""

    spec: SegmenterSpec
    inputs: Sequence[Mapping[str, Any]]
    """The golden images, as arguments of `Segmenter.predict`."""
    expected: Sequence[Mask]
    """The masks of the trained network in float32."""
    trials: dict[str, EngineTrial] = field(default_factory=dict)
    running: dict[str, Segmenter] = field(default_factory=dict)
    """The model on each engine that runs on this machine."""

    def add(self, loaders: Mapping[str, Loader], judge: Judge) -> None:
        """Load engines, compare their masks of the golden images, and judge them.

        Args:
            loaders: engines by name. An engine that does not run on this machine is not eligible.
            judge: decides whether an engine that runs is eligible.
        """
        for name, load in loaders.items():
            try:
                segmenter = Segmenter(self.spec, load())
                share = agreement((segmenter.predict(**each).class_ids for each in self.inputs), self.expected)
            except (ImportError, RuntimeError, SegpipeError) as error:
                self.trials[name] = failed_trial(name, error)
            else:
                self.running[name] = segmenter
                self.trials[name] = judge(name, segmenter, share)

    def timed_trials(self) -> list[EngineTrial]:
        """Time all engines on the first golden image, and return the trials with their times."""
        eligible = {name for name, trial in self.trials.items() if trial.eligible}
        times = median_ms(self.running, self.inputs[0], eligible)
        return [trial.model_copy(update={"median_ms": times.get(name)}) for name, trial in self.trials.items()]


def failed_trial(name: str, error: Exception) -> EngineTrial:
    """Return the trial of an engine that failed."""
    reason = f"does not run here: {' '.join(str(error).split())[:200]}"
    return EngineTrial(engine=name, eligible=False, reason=reason)


def agreement(masks: Iterable[Mask], expected: Sequence[Mask]) -> float:
    """Return the fraction of pixels with the same class, over all masks."""
    same = sum(int((a == b).sum()) for a, b in zip(masks, expected, strict=True))
    return same / sum(mask.size for mask in expected)


def require_agreement(min_agreement: float) -> Judge:
    """Return a judge for engines that run the unchanged network: at least `min_agreement` of the pixels must be the same."""

    def judge(name: str, _: Segmenter, share: float) -> EngineTrial:
        words = f"gives the trained network's class on {share:.4%} of golden pixels"
        eligible = share >= min_agreement
        reason = words if eligible else f"{words}, but {min_agreement:.4%} is required"
        return EngineTrial(engine=name, agreement=share, eligible=eligible, reason=reason)

    return judge


def median_ms(
    segmenters: Mapping[str, Segmenter], arguments: Mapping[str, Any], contenders: Collection[str] | None = None
) -> dict[str, float]:
    """Measure the median duration of `predict` for several models.

    The models take turns, so that a busy moment of the machine affects all of them alike. Before each measurement, the model runs
    for a tenth of a second without being timed: the threads of ONNX Runtime occupy the processors for a while after a prediction,
    which made OpenVINO look 1.6 times as slow as it is (U-Net, 2 cores: 84 ms instead of 52 ms).

    Args:
        segmenters: models by name.
        arguments: arguments of `Segmenter.predict`.
        contenders: the names of the models among which the fastest is sought, by default all. The others, and contenders that are
            clearly slower (`_HOPELESS`), are measured a few times only.

    Returns:
        Milliseconds by name. Slow models are measured fewer times.
    """
    times: dict[str, list[float]] = {name: [] for name in segmenters}
    start = time.perf_counter()
    timed = list(segmenters)
    for completed in range(_ROUNDS):
        if completed and time.perf_counter() - start > _MAX_TIMING_S:
            break
        if completed == _FIRST_ROUNDS:
            timed = _contenders(times, segmenters if contenders is None else contenders)
        for name in timed:
            settled = time.perf_counter() + _SETTLE_S
            segmenters[name].predict(**arguments)
            while time.perf_counter() < settled:
                segmenters[name].predict(**arguments)
            before = time.perf_counter()
            segmenters[name].predict(**arguments)
            times[name].append(1000 * (time.perf_counter() - before))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def _contenders(times: Mapping[str, Sequence[float]], names: Collection[str]) -> list[str]:
    """Return the names of the models that may be the fastest of these; none if there is only one, which needs no comparison."""
    fastest = {name: min(values) for name, values in times.items() if name in names}
    limit = _HOPELESS * min(fastest.values(), default=0.0)
    close = [name for name, value in fastest.items() if value <= limit]
    return close if len(close) > 1 else []


def choose_engine(trials: Sequence[EngineTrial], min_agreement: float) -> EngineTrial:
    """Choose an engine: the first eligible one that is about as fast as the fastest eligible one.

    Args:
        trials: the trials, in the fixed order of the engines.
        min_agreement: the required agreement, for the error message.

    Raises:
        GateBlocked: no engine is eligible.
    """
    eligible = [trial for trial in trials if trial.eligible and trial.median_ms is not None]
    if not eligible:
        raise GateBlocked(
            "no engine gives the trained network's masks",
            found="; ".join(f"{trial.engine} {trial.reason}" for trial in trials),
            expected=f"agreement of at least {min_agreement}",
            fix="lower `export.min_agreement` in params.yaml if that is good enough, or train with `train.precision: fp32`",
        )
    limit = _SPEED_TOLERANCE * min(trial.median_ms for trial in eligible if trial.median_ms is not None)
    return next(trial for trial in eligible if trial.median_ms is not None and trial.median_ms <= limit)


def engine_loaders(engines: Mapping[str, Callable[[Path, int], Engine]], graph: Path) -> dict[str, Loader]:
    """Return a loader of a graph for each engine; the engine chooses its number of threads.

    The loader of an engine that would compute in other numbers than its name says raises MissingError: its result on this machine
    would not hold on a machine where it computes as named.
    """

    def load(name: str, make: Callable[[Path, int], Engine]) -> Engine:
        if not precision_is_native(name):
            raise MissingError("this processor does not support bfloat16")
        return make(graph, 0)

    return {name: partial(load, name, make) for name, make in engines.items()}
