"""Which engine serves: each runs the golden images, is held against the trained network, and is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Loads a graph."""

_ROUNDS = 9
_SECONDS = 20.0
_SETTLE_S = 0.1
_AS_GOOD = 1.10
"""Engines this close to the fastest count as equally fast: the choice should not hang on the noise of a timing."""


class EngineTrial(BaseModel):
    """How one engine did on the golden images."""

    engine: str
    median_ms: float | None = None
    """Whole `predict` of the first golden image."""
    agreement: float | None = None
    """Share of golden pixels with the class that the trained network gives."""
    eligible: bool
    reason: str


Judge = Callable[[str, Segmenter, float], EngineTrial]
"""(engine, the model on it, agreement) -> the verdict."""


@dataclass
class EngineComparison:
    """The engines that were tried, in the order in which they were."""

    spec: SegmenterSpec
    inputs: Sequence[Mapping[str, Any]]
    """The golden images, as `Segmenter.predict` takes them."""
    wanted: Sequence[Mask]
    """What the trained network says of them, in float32."""
    trials: dict[str, EngineTrial] = field(default_factory=dict)
    running: dict[str, Segmenter] = field(default_factory=dict)

    def enter(self, engines: Mapping[str, Loader], judge: Judge) -> None:
        """Load each engine, compare its masks of the golden images, and judge it. What does not run here is no candidate."""
        for name, start in engines.items():
            try:
                segmenter = Segmenter(self.spec, start())
                share = agreement((segmenter.predict(**given).class_ids for given in self.inputs), self.wanted)
            except (ImportError, RuntimeError, SegpipeError) as error:
                self.trials[name] = failed_trial(name, error)
            else:
                self.running[name] = segmenter
                self.trials[name] = judge(name, segmenter, share)

    def timed(self) -> list[EngineTrial]:
        """The trials, with the time that each takes for the first golden image."""
        times = median_ms(self.running, self.inputs[0])
        return [trial.model_copy(update={"median_ms": times.get(name)}) for name, trial in self.trials.items()]


def failed_trial(name: str, error: Exception) -> EngineTrial:
    """The trial of an engine that failed."""
    why = f"does not run here: {' '.join(str(error).split())[:200]}"
    return EngineTrial(engine=name, eligible=False, reason=why)


def agreement(masks: Iterable[Mask], wanted: Sequence[Mask]) -> float:
    """Share of pixels that are the same."""
    same = sum(int((a == b).sum()) for a, b in zip(masks, wanted, strict=True))
    return same / sum(mask.size for mask in wanted)


def require_agreement(least: float) -> Judge:
    """The judge of engines that compute the network as it is: a share of `least` of the pixels must be the same."""

    def judge(name: str, _: Segmenter, share: float) -> EngineTrial:
        words = f"gives the trained network's class on {share:.4%} of golden pixels"
        reason = words if share >= least else f"{words}, {least:.4%} needed"
        return EngineTrial(engine=name, agreement=share, eligible=share >= least, reason=reason)

    return judge


def median_ms(segmenters: Mapping[str, Segmenter], given: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of each `predict`, in rounds, so that a busy moment of the machine meets all of them alike.

    Before each, a tenth of a second of answers does not count: ONNX Runtime's threads keep the processors for a while after theirs, waiting
    for the next, and made OpenVINO look 1.6 times as slow as it is (a U-Net on two cores: 84 ms, and 52 alone). Slow models get
    fewer rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in segmenters}
    began = time.perf_counter()
    for done in range(_ROUNDS):
        if done and time.perf_counter() - began > _SECONDS:
            break
        for name, segmenter in segmenters.items():
            settled = time.perf_counter() + _SETTLE_S
            segmenter.predict(**given)
            while time.perf_counter() < settled:
                segmenter.predict(**given)
            start = time.perf_counter()
            segmenter.predict(**given)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(taken), 2) for name, taken in times.items()}


def choose_engine(trials: Sequence[EngineTrial], min_agreement: float) -> EngineTrial:
    """The first of the engines (in their fixed order) that may serve and are about as fast as the fastest of those."""
    eligible = [trial for trial in trials if trial.eligible and trial.median_ms is not None]
    if not eligible:
        found = "; ".join(f"{trial.engine} {trial.reason}" for trial in trials)
        raise GateBlocked(
            "no engine gives the trained network's masks",
            found=found,
            expected=f"agreement of at least {min_agreement}",
            fix="lower `export.min_agreement` in params.yaml if that is good enough, or train in fp32",
        )
    fastest = min(trial.median_ms for trial in eligible if trial.median_ms is not None)
    return next(trial for trial in eligible if trial.median_ms is not None and trial.median_ms <= _AS_GOOD * fastest)


def engine_loaders(engines: Mapping[str, Callable[[Path, int], Engine]], graph: Path) -> dict[str, Loader]:
    """Each engine on a graph, with as many threads as it likes. One that would compute in other numbers than it is named after does not
    start: what is found of it here would not hold where it computes in those."""

    def start(name: str, make: Callable[[Path, int], Engine]) -> Engine:
        if not precision_is_native(name):
            raise MissingError("this processor does not compute in bfloat16")
        return make(graph, 0)

    return {name: partial(start, name, make) for name, make in engines.items()}
