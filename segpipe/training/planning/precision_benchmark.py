"""Which precision and memory format, and whether compiled: raced against each other on a real batch."""

from __future__ import annotations

import copy
import gc
import math
import time
from statistics import fmean, pstdev

import torch

from segpipe.config import TrainParams
from segpipe.errors import ConfigError
from segpipe.training.machine import has_bf16, synchronize
from segpipe.training.plan import Plan, StepSetting, Timing
from segpipe.training.planning.budget import budget_seconds
from segpipe.training.sampling.crops import Samples, collate_of
from segpipe.training.step import Stepper, seed_step
from segpipe.training.tasks import objective_of
from segpipe.training.telemetry.bottleneck import SLOW_STEP_MS

LOSS_TOLERANCE = 0.02
"""How far, relatively, the first loss under a setting may lie from that of fp32 contiguous."""
_DRAWS = 5
"""Of a detector's first loss. It learns from proposals drawn by lot, and rounding alone lets other ones be drawn."""
_CLOSE = 1.3
"""Settings within this factor of the fastest are timed again, up to `_TURNS` times."""
_TURNS = 4
_COMPILE_BUDGET_S = {"cpu": 15 * 60.0, "cuda": 5 * 60.0}
"""Compiling takes a minute or more; a shorter training can't repay it."""


def candidate_settings(wanted: TrainParams, device: str) -> list[StepSetting]:
    """The settings to race, the likeliest winner first, so that the others can be dropped early."""
    if wanted.precision == "fp16" and device == "cpu":
        raise ConfigError(
            "float16 is for GPUs: processors compute it slowly", where="train.precision", fix="set it to auto or bf16"
        )
    half = "bf16" if has_bf16(device) else "fp16" if device == "cuda" else None
    precisions = [p for p in (half, "fp32") if p] if wanted.precision == "auto" else [wanted.precision]
    formats = [True, False] if wanted.channels_last == "auto" else [wanted.channels_last]
    return [
        StepSetting(precision=p, channels_last=f, compile=wanted.compile is True)  # type: ignore[arg-type]
        for p in precisions
        for f in formats
    ]


CHOSEN = "chosen"
_AGREES = "agrees"


class PrecisionBenchmark:
    """Times settings on one real batch and keeps the fastest whose loss agrees with fp32 contiguous."""

    def __init__(self, draft: Plan, network: torch.nn.Module, crops: Samples, device: str, wanted: TrainParams) -> None:
        assert draft.recipe is not None
        self.seed, self.of, self.recipe, self.device, self.wanted = draft.seed, draft.model_family, draft.recipe, device, wanted
        self.network = copy.deepcopy(network)
        for module in self.network.modules():  # its draws follow memory order, so losses would differ by chance
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
        mine = range(0, self.recipe.batch, wanted.devices * wanted.num_nodes)
        self.images, self.labels = collate_of(crops)([crops[i] for i in mine])
        self.reference, self.tolerance = self._reference_loss()
        self._first_s: dict[StepSetting, float] = {}

    def run(self) -> list[Timing]:
        """The table of what was measured; the verdict of the winner is `CHOSEN`."""
        timings: list[Timing] = []
        began = time.perf_counter()
        for setting in candidate_settings(self.wanted, self.device):
            best = fastest(timings)
            if best and time.perf_counter() - began > self._seconds(best):
                verdict = "not tried: the budget is short"
                timings.append(Timing(setting=setting, ms_per_step=None, loss_difference=None, verdict=verdict))
            else:
                timings.append(self._time(setting, best))
        if fastest(timings) is None:
            plain = self._time(StepSetting(precision="fp32", channels_last=False), None)
            timings.append(plain.model_copy(update={"verdict": _AGREES}))
        timings = self._again(timings)
        timings += self._compiled(fastest(timings))
        winner = fastest(timings)
        return [t.model_copy(update={"verdict": CHOSEN}) if t is winner else t for t in timings]

    def compile_seconds(self, setting: StepSetting) -> float:
        """What compiling took; 0 where nothing is compiled. A training may find some of it done, in the compiler's cache."""
        return self._first_s[setting] if setting.compile else 0.0

    def _seconds(self, best: Timing) -> float:
        """After how long no further setting is tried: when the next one could break the bound on the whole measurement."""
        budget = budget_seconds(self.wanted, best.ms_per_step or 0)
        return min(9.0, 0.025 * budget) if self.device == "cpu" else min(20.0, 0.1 * budget)

    def _reference_loss(self) -> tuple[float, float]:
        """The first loss in fp32 contiguous, and how far from it others may lie: of a detector, its mean over draws of proposals, and
        at least three standard deviations of these."""
        device, losses = torch.device(self.device), []
        cost = objective_of(self.of, self.recipe, device)
        for number in range(_DRAWS if self.of.kind == "detector" else 1):
            network = copy.deepcopy(self.network).to(device).train()
            seed_step(self.seed, number)
            with torch.no_grad():
                losses.append(float(cost(network, (self.images.to(device), self.labels), device)))
        mean = fmean(losses)
        return mean, max(LOSS_TOLERANCE * abs(mean), 3 * pstdev(losses))

    def _time(self, setting: StepSetting, best: Timing | None) -> Timing:
        stepper = Stepper(copy.deepcopy(self.network), self.of, self.recipe, setting, self.device)
        losses: list[torch.Tensor] = []
        least = math.inf
        for number in range(4):  # the first one prepares kernels
            began = time.perf_counter()
            losses.append(stepper.step(number, self.images, self.labels, self.seed))
            synchronize(self.device)
            took = time.perf_counter() - began
            self._first_s.setdefault(setting, took)
            least = min(least, took * 1000) if number else least
            if number and (least > SLOW_STEP_MS or (best and least > 1.25 * (best.ms_per_step or math.inf))):
                break
        del stepper
        gc.collect()
        if not all(bool(torch.isfinite(loss)) for loss in losses):
            return Timing(
                setting=setting,
                ms_per_step=round(least, 1),
                loss_difference=None,
                verdict="refused: its loss is not finite",
            )
        loss = float(losses[0])
        difference = loss / self.reference - 1 if self.reference else 0.0
        agrees = abs(loss - self.reference) <= self.tolerance
        verdict = _AGREES if agrees else "refused: its loss is not that of fp32"
        return Timing(
            setting=setting, ms_per_step=round(least, 1), loss_difference=round(difference, 5), verdict=verdict
        )

    def _again(self, timings: list[Timing]) -> list[Timing]:
        """Those about as fast as the fastest, timed by turns, so that a busy moment of the machine hurts all alike; the least counts.
        A GPU has no such moments, and may not hold two networks; and none is compiled twice."""
        best = fastest(timings)
        assert best is not None and best.ms_per_step is not None
        most = _CLOSE * best.ms_per_step
        close = {
            t.setting: t.ms_per_step
            for t in timings
            if t.verdict == _AGREES and t.ms_per_step and t.ms_per_step <= most
        }
        now, cost = time.perf_counter(), sum(close.values()) / 1000
        if len(close) < 2 or self.device != "cpu" or best.setting.compile or 2 * cost > self._seconds(best):
            return timings
        steppers = [
            Stepper(copy.deepcopy(self.network), self.of, self.recipe, setting, self.device) for setting in close
        ]
        for turn in range(1 + _TURNS):  # the first one prepares kernels
            if turn > 1 and time.perf_counter() - now + cost > self._seconds(best):
                break
            for stepper in steppers:
                began = time.perf_counter()
                stepper.step(turn, self.images, self.labels, self.seed)
                took = round((time.perf_counter() - began) * 1000, 1)
                close[stepper.setting] = min(close[stepper.setting], took if turn else math.inf)
        del steppers, stepper
        gc.collect()
        return [t.model_copy(update={"ms_per_step": close.get(t.setting, t.ms_per_step)}) for t in timings]

    def _compiled(self, best: Timing | None) -> list[Timing]:
        """The winner again, compiled, where the budget may repay it; refused where it does not."""
        assert best is not None and best.ms_per_step is not None
        budget = budget_seconds(self.wanted, best.ms_per_step)
        if self.wanted.compile != "auto" or budget < _COMPILE_BUDGET_S[self.device] or self.of.kind == "detector":
            return []
        setting = best.setting.model_copy(update={"compile": True})
        began = time.perf_counter()
        try:
            timing = self._time(setting, best)
        except Exception as error:  # noqa: BLE001  # whatever a compiler may say; it stands in the table
            verdict = f"can't be compiled here: {next(iter(str(error).splitlines()), type(error).__name__)[:120]}"
            return [Timing(setting=setting, ms_per_step=None, loss_difference=None, verdict=verdict)]
        cost, gain = time.perf_counter() - began, 1 - (timing.ms_per_step or math.inf) / best.ms_per_step
        if timing.verdict == _AGREES and gain * budget < cost:
            timing = timing.model_copy(
                update={
                    "verdict": f"refused: compiling takes {cost:.0f} s and would save {max(gain, 0) * budget:.0f} s"
                }
            )
        return [timing]


def fastest(timings: list[Timing]) -> Timing | None:
    """The fastest of the settings that agree."""
    return min((t for t in timings if t.verdict == _AGREES), key=lambda t: t.ms_per_step or math.inf, default=None)
