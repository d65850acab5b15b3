"""The setting in which steps are computed, and their speed: known from an earlier plan, or measured now."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import parse_budget
from segpipe.training.machine import peak_memory_mib, worker_counts
from segpipe.training.optim.freezing import encoder_switch
from segpipe.training.plan import Timing
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.progressive import Progressive
from segpipe.training.speed.loop_benchmark import LoopBenchmark, choose_workers
from segpipe.training.speed.precision_benchmark import (
    CHOSEN,
    NOT_TRIED,
    PrecisionBenchmark,
    candidate_settings,
    may_compile,
)
from segpipe.training.speed.speed_cache import Comparison, KnownSpeed, SpeedKey, entry_path, recall, remember, speed_key
from segpipe.training.speed.time_limits import SHORT_BUDGET_S, budget_seconds, has_short_budget
from segpipe.training.step import Stepper
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import step_parts

if TYPE_CHECKING:
    import torch

    from segpipe.config import TrainParams
    from segpipe.training.plan import RecipePlan, StepSetting
    from segpipe.training.sampling.crops import Reader

_MAX_LOOP_S, _MAX_LOOP_SHARE, _MAX_SHORT_LOOP_SHARE = 4.0, 0.04, 0.01
"""The longest time for which the loop is run, in seconds and as a share of the budget; the last one of a short budget."""
_MAX_DEVIATION = 0.25
"""A known speed is replaced by that of a few steps now if they differ by more than this share: the machine is busier, or less busy."""


@dataclass(frozen=True)
class StepSpeed:
    """The speed of the steps of a plan."""

    values: KnownSpeed
    stepper: Stepper
    """A network in the chosen setting; it has been trained for a few steps."""
    ms_by_workers: dict[int, float]
    """Milliseconds per step by number of workers, the chosen one first."""
    source: Path | None
    """The entry of the cache from which the setting comes; None if it was chosen now."""


class SpeedMeasurement:
    """Finds the setting and the speed of a plan's steps.

    Args:
        plan: the plan so far.
        network: its network; copies are trained.
        train: the training split.
        settings: the candidate's `train` settings.
        device: "cpu" or "cuda".
    """

    def __init__(
        self, plan: RecipePlan, network: torch.nn.Module, train: Reader, settings: TrainParams, device: str
    ) -> None:
        self.plan, self.network, self.train, self.settings, self.device = plan, network, train, settings, device
        self.crops = samples_of(train, plan)
        self.world_size = settings.devices * settings.num_nodes
        self.is_short = has_short_budget(settings)

    def run(self, reuse: bool = True) -> StepSpeed:
        """Return the speed, from an earlier plan or measured now; what is measured is kept for later plans.

        Args:
            reuse: whether the speeds of earlier plans are used.
        """
        known = self._recall() if reuse else None
        if known is not None:
            return self._check(known)
        likeliest = self._time_likeliest() if self.is_short else None
        result = likeliest or self._compare()
        remember(result.values)
        return result

    def loop(self, workers: int, ms_step: float) -> LoopBenchmark:
        """Return the benchmark of the loop, with the time that the budget leaves for it.

        Args:
            workers: processes that prepare batches.
            ms_step: about how many milliseconds a step takes.
        """
        share = _MAX_SHORT_LOOP_SHARE if self.is_short else _MAX_LOOP_SHARE
        seconds = min(_MAX_LOOP_S, share * budget_seconds(self.settings, ms_step))
        return LoopBenchmark(workers, self.plan.seed, self.world_size, seconds, 1 if self.is_short else 2)

    def _key(self, comparison: Comparison) -> SpeedKey:
        return speed_key(self.plan, self.settings, self.device, comparison)

    def _recall(self) -> KnownSpeed | None:
        """Return the known speed whose comparison of settings was as thorough as this budget asks for."""
        for comparison in ("compilation", "settings", "none"):
            known = recall(self._key(comparison), KnownSpeed)
            if known is None:
                continue
            seconds = budget_seconds(self.settings, known.ms_per_step)
            compiles = may_compile(self.settings, seconds, self.device, self.plan.model_family)
            is_short = self.is_short or seconds < SHORT_BUDGET_S  # a budget of steps is short if these steps are
            if comparison == ("compilation" if compiles else "settings") or (comparison == "none" and is_short):
                return known
        return None

    def _check(self, known: KnownSpeed) -> StepSpeed:
        """Adapt a known speed to how busy the machine is now, if a budget of time depends on it."""
        stepper = self._stepper(known.setting)
        path = entry_path(known.key, KnownSpeed)
        if parse_budget(self.settings.budget)[0] == "seconds" and not known.setting.compile:
            ms = replace(self.loop(known.workers, known.ms_per_step), seconds=0.0, warmup_steps=1, min_steps=2).time(
                stepper, self.crops
            )
            factor = ms / known.ms_per_step
            if abs(factor - 1) > _MAX_DEVIATION:
                known = known.model_copy(
                    update={
                        "ms_per_step": ms,
                        "ms_cheaper": [factor * cheaper for cheaper in known.ms_cheaper],
                        "step_ms": {name: factor * part for name, part in known.step_ms.items()},
                    }
                )
        return StepSpeed(known, stepper, {known.workers: known.ms_per_step}, path)

    def _time_likeliest(self) -> StepSpeed | None:
        """Time the loop in the setting that is most likely the fastest; None if its loss is not finite."""
        setting, *others = candidate_settings(self.settings, self.device)
        stepper = self._stepper(setting)
        loop = self.loop(self._worker_counts()[0], 0.0)
        times = loop.run(stepper, self.crops)
        if not times.is_finite:
            return None
        ms = times.ms_per_step
        chosen = Timing(setting=setting, ms_per_step=round(ms, 1), loss_difference=None, verdict=CHOSEN)
        untried = [Timing(setting=o, ms_per_step=None, loss_difference=None, verdict=NOT_TRIED) for o in others]
        parts = {"batches": times.ms_waiting, "steps": ms - times.ms_waiting}
        return self._result(stepper, loop, {loop.workers: ms}, [chosen, *untried], parts)

    def _compare(self) -> StepSpeed:
        """Time all settings on one batch, and the loop in the fastest of them."""
        benchmark = PrecisionBenchmark(self.plan, self.network, self.crops, self.device, self.settings)
        timings = benchmark.run()
        chosen = next(timing for timing in timings if timing.verdict == CHOSEN)
        stepper, chosen_ms = self._stepper(chosen.setting), chosen.ms_per_step or 0.0
        counts = self._worker_counts()
        loop = self.loop(counts[0], chosen_ms)
        ms_by_workers = choose_workers(counts, loop, stepper, self.crops, chosen_ms)
        workers, ms = next(iter(ms_by_workers.items()))
        compile_s = benchmark.compile_seconds(chosen.setting)
        return self._result(
            stepper, replace(loop, workers=workers), ms_by_workers, timings, self._parts(stepper, ms), compile_s
        )

    def _result(
        self,
        stepper: Stepper,
        loop: LoopBenchmark,
        ms_by_workers: dict[int, float],
        timings: list[Timing],
        parts: dict[str, float],
        compile_s: float = 0.0,
    ) -> StepSpeed:
        values = KnownSpeed(
            key=self._key(self._comparison(timings)),
            setting=stepper.setting,
            workers=loop.workers,
            timings=timings,
            ms_per_step=ms_by_workers[loop.workers],
            ms_cheaper=self._time_cheaper_steps(stepper, loop),
            step_ms=parts,
            peak_memory_mib=peak_memory_mib(self.device),
            compile_s=compile_s,
        )
        return StepSpeed(values, stepper, ms_by_workers, None)

    def _comparison(self, timings: list[Timing]) -> Comparison:
        if any(timing.verdict == NOT_TRIED for timing in timings):
            return "none"
        chosen_ms = next(timing.ms_per_step or 0.0 for timing in timings if timing.verdict == CHOSEN)
        seconds = budget_seconds(self.settings, chosen_ms)
        return "compilation" if may_compile(self.settings, seconds, self.device, self.plan.model_family) else "settings"

    def _worker_counts(self) -> list[int]:
        settings = self.settings
        return worker_counts(self.device, settings.devices) if settings.workers is None else [settings.workers]

    def _stepper(self, setting: StepSetting) -> Stepper:
        return Stepper(copy.deepcopy(self.network), self.plan.model_family, self.plan.recipe, setting, self.device)

    def _parts(self, stepper: Stepper, ms_step: float) -> dict[str, float]:
        """Return the milliseconds per step of each part of a step."""
        plan = self.plan
        plain_recipe = plan.recipe.model_copy(update={"augment": "off"})
        plain = samples_of(self.train, plan.model_copy(update={"recipe": plain_recipe}))
        images, labels = next(batches(self.crops, plan.recipe, 0, 0, 1, world_size=self.world_size))
        return step_parts(stepper, images, labels, plan.seed, plain, self.crops, ms_step)

    def _time_cheaper_steps(self, stepper: Stepper, loop: LoopBenchmark) -> list[float]:
        """Time the kinds of first steps that are cheaper, in the order of `cheaper_shares`. Returns milliseconds per step."""
        ms = []
        if isinstance(self.crops, Progressive):
            ms.append(loop.time(stepper, self.crops.small))
        if self.settings.freeze_encoder:
            freeze = encoder_switch(stepper.network)
            freeze(True)
            ms.append(loop.time(stepper, self.crops))
            freeze(False)
        return ms


def cheaper_shares(plan: RecipePlan, settings: TrainParams) -> list[float]:
    """List the kinds of first steps that are cheaper, each by its share of all steps: smaller crops, and a frozen encoder.

    Args:
        plan: the plan so far.
        settings: the candidate's `train` settings.
    """
    shares = [settings.progressive_share] if plan.recipe.first else []
    return shares + ([settings.freeze_encoder] if settings.freeze_encoder else [])
