"""The benchmark that chooses precision, memory format and compilation, by timing each setting on a real batch."""

from __future__ import annotations

import copy
import gc
import math
import time
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

import torch

from segpipe.config import TrainParams
from segpipe.errors import ConfigError
from segpipe.training.machine import has_bf16, synchronize
from segpipe.training.plan import RecipePlan, StepSetting, Timing
from segpipe.training.sampling.crops import Samples, collate_of
from segpipe.training.speed.time_limits import budget_seconds
from segpipe.training.step import Stepper, seed_step
from segpipe.training.tasks import objective_of
from segpipe.training.telemetry.bottleneck import SLOW_STEP_MS

if TYPE_CHECKING:
    from segpipe.models.registry import Family

LOSS_TOLERANCE = 0.02
"""The largest relative difference between the first loss of a setting and that of fp32 contiguous."""
CHOSEN = "chosen"
NOT_TRIED = "not tried: the budget is short"
_AGREES = "agrees"
_TIMED_STEPS = 4
"""Steps per setting, of which the first prepares kernels and is not counted."""
_DETECTOR_DRAWS = 5
"""First losses of a detector that are averaged. It learns from proposals drawn at random, and rounding alone changes the draw."""
_HOPELESS_RATIO = 1.25
"""A setting this many times slower than the fastest is not timed further."""
_CLOSE_RATIO = 1.3
"""Settings within this factor of the fastest are timed again, up to `_REPEATS` times."""
_REPEATS = 4
_MIN_COMPILE_BUDGET_S = {"cpu": 15 * 60.0, "cuda": 5 * 60.0}
"""Compiling takes a minute or more, which a shorter training cannot save."""


def candidate_settings(settings: TrainParams, device: str) -> list[StepSetting]:
    """List the settings to time, the most promising first, so that the others can be dropped early.

    Raises:
        ConfigError: float16 is asked for on a CPU.
    """
    if settings.precision == "fp16" and device == "cpu":
        raise ConfigError(
            "float16 is for GPUs: CPUs compute it slowly", where="train.precision", fix="set it to auto or bf16"
        )
    half = "bf16" if has_bf16(device) else "fp16" if device == "cuda" else None
    precisions = [p for p in (half, "fp32") if p] if settings.precision == "auto" else [settings.precision]
    formats = [True, False] if settings.channels_last == "auto" else [settings.channels_last]
    return [
        StepSetting(precision=precision, channels_last=channels_last, compile=settings.compile is True)
        for precision in precisions
        for channels_last in formats
    ]


def may_compile(settings: TrainParams, seconds: float, device: str, family: Family) -> bool:
    """Return whether compiling is left open and a budget may repay it.

    Args:
        settings: the candidate's `train` settings.
        seconds: the budget.
        device: "cpu" or "cuda".
        family: the family of the network.
    """
    return settings.compile == "auto" and seconds >= _MIN_COMPILE_BUDGET_S[device] and family.kind != "detector"


class PrecisionBenchmark:
    """Times settings on one real batch and chooses the fastest whose loss agrees with fp32 contiguous.

    Args:
        plan: the plan to measure.
        network: its network; copies are trained.
        crops: the training samples.
        device: "cpu" or "cuda".
        settings: the candidate's `train` settings.
    """

    def __init__(
        self, plan: RecipePlan, network: torch.nn.Module, crops: Samples, device: str, settings: TrainParams
    ) -> None:
        self.seed, self.family, self.recipe = plan.seed, plan.model_family, plan.recipe
        self.device, self.settings = device, settings
        self.network = copy.deepcopy(network)
        for module in self.network.modules():  # dropout draws in memory order, so losses would differ by chance
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
        positions = range(0, self.recipe.batch, settings.devices * settings.num_nodes)
        self.images, self.labels = collate_of(crops)([crops[position] for position in positions])
        self.reference, self.tolerance = self._reference_loss()
        self._first_step_s: dict[StepSetting, float] = {}

    def run(self) -> list[Timing]:
        """Time the settings. Returns a table; the verdict of the fastest is `CHOSEN`."""
        timings: list[Timing] = []
        started = time.perf_counter()
        for setting in candidate_settings(self.settings, self.device):
            best = fastest(timings)
            if best and time.perf_counter() - started > self._time_limit_s(best):
                timings.append(Timing(setting=setting, ms_per_step=None, loss_difference=None, verdict=NOT_TRIED))
            else:
                timings.append(self._time(setting, best))
        if fastest(timings) is None:
            fallback = self._time(StepSetting(precision="fp32", channels_last=False), None)
            timings.append(fallback.model_copy(update={"verdict": _AGREES}))
        timings = self._time_close_ones_again(timings)
        timings += self._time_compiled(fastest(timings))
        winner = fastest(timings)
        return [t.model_copy(update={"verdict": CHOSEN}) if t is winner else t for t in timings]

    def compile_seconds(self, setting: StepSetting) -> float:
        """Return the seconds that compiling took; 0 if the setting is not compiled.

        A training may need less, if it finds results in the compiler's cache.
        """
        return self._first_step_s[setting] if setting.compile else 0.0

    def _time_limit_s(self, best: Timing) -> float:
        """Return after how many seconds no further setting is tried, so that the whole measurement stays within its limit."""
        budget = budget_seconds(self.settings, best.ms_per_step or 0)
        return min(9.0, 0.025 * budget) if self.device == "cpu" else min(20.0, 0.1 * budget)

    def _reference_loss(self) -> tuple[float, float]:
        """Compute the first loss in fp32 contiguous, and how far other settings may differ from it.

        For a detector this is the mean over draws of proposals, and at least three standard deviations of these.
        """
        device, losses = torch.device(self.device), []
        objective = objective_of(self.family, self.recipe, device)
        for number in range(_DETECTOR_DRAWS if self.family.kind == "detector" else 1):
            network = copy.deepcopy(self.network).to(device).train()
            seed_step(self.seed, number)
            with torch.no_grad():
                losses.append(float(objective(network, (self.images.to(device), self.labels), device)))
        mean = fmean(losses)
        return mean, max(LOSS_TOLERANCE * abs(mean), 3 * pstdev(losses))

    def _time(self, setting: StepSetting, best: Timing | None) -> Timing:
        stepper = self._stepper(setting)
        losses: list[torch.Tensor] = []
        fastest_ms = math.inf
        for number in range(_TIMED_STEPS):
            started = time.perf_counter()
            losses.append(stepper.step(number, self.images, self.labels, self.seed))
            synchronize(self.device)
            seconds = time.perf_counter() - started
            self._first_step_s.setdefault(setting, seconds)
            fastest_ms = min(fastest_ms, seconds * 1000) if number else fastest_ms
            hopeless = best is not None and fastest_ms > _HOPELESS_RATIO * (best.ms_per_step or math.inf)
            if number and (fastest_ms > SLOW_STEP_MS or hopeless):
                break
        del stepper
        gc.collect()
        if not all(bool(torch.isfinite(loss)) for loss in losses):
            return Timing(
                setting=setting,
                ms_per_step=round(fastest_ms, 1),
                loss_difference=None,
                verdict="refused: its loss is not finite",
            )
        loss = float(losses[0])
        difference = loss / self.reference - 1 if self.reference else 0.0
        agrees = abs(loss - self.reference) <= self.tolerance
        verdict = _AGREES if agrees else "refused: its loss differs from that of fp32"
        return Timing(
            setting=setting, ms_per_step=round(fastest_ms, 1), loss_difference=round(difference, 5), verdict=verdict
        )

    def _time_close_ones_again(self, timings: list[Timing]) -> list[Timing]:
        """Time those about as fast as the fastest in turns, and keep the least of each, so that a busy moment affects all alike.

        Not on a GPU, which has no busy moments and may not hold two networks; and not if the network is compiled.
        """
        best = fastest(timings)
        assert best is not None and best.ms_per_step is not None
        limit_ms = _CLOSE_RATIO * best.ms_per_step
        close = {
            t.setting: t.ms_per_step
            for t in timings
            if t.verdict == _AGREES and t.ms_per_step and t.ms_per_step <= limit_ms
        }
        started, turn_s = time.perf_counter(), sum(close.values()) / 1000
        if len(close) < 2 or self.device != "cpu" or best.setting.compile or 2 * turn_s > self._time_limit_s(best):
            return timings
        steppers = [self._stepper(setting) for setting in close]
        for turn in range(1 + _REPEATS):  # the first prepares kernels
            if turn > 1 and time.perf_counter() - started + turn_s > self._time_limit_s(best):
                break
            for stepper in steppers:
                step_started = time.perf_counter()
                stepper.step(turn, self.images, self.labels, self.seed)
                ms = round((time.perf_counter() - step_started) * 1000, 1)
                close[stepper.setting] = min(close[stepper.setting], ms if turn else math.inf)
        del steppers, stepper
        gc.collect()
        return [t.model_copy(update={"ms_per_step": close.get(t.setting, t.ms_per_step)}) for t in timings]

    def _time_compiled(self, best: Timing | None) -> list[Timing]:
        """Time the fastest setting compiled, if compilation may save more time than it takes; if it does not, it is rejected."""
        assert best is not None and best.ms_per_step is not None
        budget = budget_seconds(self.settings, best.ms_per_step)
        if not may_compile(self.settings, budget, self.device, self.family):
            return []
        setting = best.setting.model_copy(update={"compile": True})
        started = time.perf_counter()
        try:
            timing = self._time(setting, best)
        except Exception as error:  # noqa: BLE001  # compilers raise anything; the table reports it
            message = next(iter(str(error).splitlines()), type(error).__name__)[:120]
            verdict = f"cannot be compiled here: {message}"
            return [Timing(setting=setting, ms_per_step=None, loss_difference=None, verdict=verdict)]
        cost_s = time.perf_counter() - started
        saved_s = (1 - (timing.ms_per_step or math.inf) / best.ms_per_step) * budget
        if timing.verdict == _AGREES and saved_s < cost_s:
            verdict = f"refused: compiling takes {cost_s:.0f} s and would save {max(saved_s, 0):.0f} s"
            timing = timing.model_copy(update={"verdict": verdict})
        return [timing]

    def _stepper(self, setting: StepSetting) -> Stepper:
        return Stepper(copy.deepcopy(self.network), self.family, self.recipe, setting, self.device)


def fastest(timings: list[Timing]) -> Timing | None:
    """Return the fastest of the settings whose loss agrees; None if there is none."""
    return min((t for t in timings if t.verdict == _AGREES), key=lambda t: t.ms_per_step or math.inf, default=None)
