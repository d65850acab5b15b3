"""How the steps of a plan are computed here: settings raced against each other, and steps counted from a wall-clock budget."""

from __future__ import annotations

import copy
import gc
import math
import time
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch

from segpipe.config import TrainParams, parse_budget
from segpipe.errors import ConfigError
from segpipe.samples import ClassTable
from segpipe.training.batches import Reader, Samples, batches, collate_of
from segpipe.training.bottleneck import SLOW_MS, step_parts
from segpipe.training.budget import LAUNCH_S, PLAN_START_S, budget_seconds, count_steps, mean_step, seconds_to_finish
from segpipe.training.freezing import encoder_of, encoder_switch
from segpipe.training.machine import choose_device, choose_workers, has_bf16, peak_memory_mib, this_machine, wait
from segpipe.training.pace import Loop, exchange_ms, with_exchange
from segpipe.training.plan import Execution, Plan, Recipe, Setting, Timing
from segpipe.training.progressive import Progressive
from segpipe.training.rate_test import find_rate
from segpipe.training.schedules import warmup_steps
from segpipe.training.scoring import score_split, segmenter_spec, validator
from segpipe.training.stepper import Stepper, draw_from, settle_process
from segpipe.training.tasks import objective_of, samples_of

LOSS_TOLERANCE = 0.02
"""How far, relatively, the first loss under a setting may lie from that of fp32 contiguous."""
_DRAWS = 5
"""Of a detector's first loss. It learns from proposals drawn by lot, and rounding alone lets other ones be drawn."""
_CHECKPOINT_S = 30.0
_COMPILE_BUDGET_S = {"cpu": 15 * 60.0, "cuda": 5 * 60.0}
"""Compiling takes a minute or more; a shorter training can't repay it."""


@dataclass(frozen=True)
class Measured:
    """What `measure` found."""

    recipe: Recipe
    execution: Execution
    reasons: dict[str, str]


def measure(
    draft: Plan, network: torch.nn.Module, wanted: TrainParams, classes: ClassTable, train: Reader, val: Reader,
    began: float,
) -> Measured:  # fmt: skip
    """Race the settings on a real batch, time the real loop with the winner, and turn the budget into steps.

    began: when planning did (`time.perf_counter`); a wall-clock budget pays for it. Takes about 15 s with the small networks on two
    cores; never more than about 15 % of a wall-clock budget. Where several processes are to train, one takes the steps of one:
    its share of each batch, with its share of the processors; for a wall-clock budget, those of this machine run side by side for a
    moment, too, which takes as long again as their start.
    """
    recipe = draft.recipe
    assert recipe is not None
    if wanted.freeze_encoder:
        encoder_of(network)
    device, ranks = choose_device(wanted.accelerator), wanted.devices * wanted.num_nodes
    threads = torch.get_num_threads()
    settle_process(max(1, threads // wanted.devices) if device == "cpu" else threads)
    kind, amount = parse_budget(wanted.budget)
    crops = samples_of(train, draft)
    race = Race(draft, network, crops, device, wanted)
    timings = race.run()
    chosen = next(t for t in timings if t.verdict == CHOSEN)
    setting, workers = chosen.setting, choose_workers(device, wanted.devices)
    stepper = Stepper(copy.deepcopy(network), draft.of, recipe, setting, device)
    seconds = min(4.0, 0.04 * budget_seconds(wanted, chosen.ms_per_step or 0))
    loop = Loop(workers, draft.seed, ranks, seconds)
    ms_step = loop.time(stepper, crops)
    ms_val = _time_validation(stepper, draft, classes, val)
    plain = samples_of(train, draft.model_copy(update={"recipe": recipe.model_copy(update={"augment": "off"})}))
    batch = next(batches(crops, recipe, 0, 0, 1, ranks=ranks))
    parts = step_parts(stepper, *batch, draft.seed, plain, crops, ms_step)
    cheaper = _cheaper_steps(stepper, loop, crops, wanted)
    besides = PLAN_START_S + seconds_to_finish(draft, segmenter_spec(draft, classes), val, ms_val)
    besides += race.compile_seconds(setting) * (1 + len(cheaper)) * (wanted.folds or 1)
    found: dict[str, str] = {}
    if wanted.learning_rate == "auto":
        tried = Stepper(copy.deepcopy(network), draft.of, recipe.model_copy(update={"ema": 0.0}), setting, device)
        test = find_rate(tried, crops, workers, draft.seed, budget_seconds(wanted, ms_step), ms_step * ranks)
        recipe = recipe.model_copy(update={"learning_rate": test.rate})
        found["learning rate"] = test.words
    settle_process(threads)
    execution = Execution(
        setting=setting, devices=wanted.devices, nodes=wanted.num_nodes, workers=workers, ms_per_step=round(ms_step, 1),
        step_ms={name: round(ms, 2) for name, ms in parts.items()}, ms_per_validation=round(ms_val, 1),
        peak_memory_mib=peak_memory_mib(device), timings=timings, machine=this_machine(device),
    )  # fmt: skip
    exchange = 0.0
    if kind == "seconds" and wanted.devices > 1:
        exchange = exchange_ms(draft.model_copy(update={"execution": execution}), train, loop, ms_step)
        execution = with_exchange(execution, exchange)
        besides += LAUNCH_S
    besides += time.perf_counter() - began
    ms_mean, ms_share = mean_step(ms_step, cheaper) + exchange, ms_val * math.ceil(len(val) / ranks) / len(val)
    steps, validations = count_steps(
        kind, amount, len(train), recipe.batch, ms_mean, ms_share, besides, wanted.folds or 1
    )
    schedule = {
        "steps": steps,
        "freeze_steps": round((wanted.freeze_encoder or 0) * steps),
        "warmup_steps": warmup_steps(steps, recipe.schedule),
        "val_every": math.ceil(steps / validations),
        "checkpoint_every": max(1, round(_CHECKPOINT_S * 1000 / ms_mean)),
        "first": recipe.first and recipe.first.model_copy(update={"steps": round(wanted.progressive_share * steps)}),
    }
    timed = recipe.model_copy(update=schedule)
    spent = besides if kind == "seconds" else 0.0
    return Measured(timed, execution, _reasons(wanted, timed, execution, validations, spent) | found)


def settings(wanted: TrainParams, device: str) -> list[Setting]:
    """The settings to race, the likeliest winner first, so that the others can be dropped early."""
    if wanted.precision == "fp16" and device == "cpu":
        raise ConfigError(
            "float16 is for GPUs: processors compute it slowly", where="train.precision", fix="set it to auto or bf16"
        )
    half = "bf16" if has_bf16(device) else "fp16" if device == "cuda" else None
    precisions = [p for p in (half, "fp32") if p] if wanted.precision == "auto" else [wanted.precision]
    formats = [True, False] if wanted.channels_last == "auto" else [wanted.channels_last]
    return [
        Setting(precision=p, channels_last=f, compile=wanted.compile is True)  # type: ignore[arg-type]
        for p in precisions
        for f in formats
    ]


CHOSEN = "chosen"
_AGREES = "agrees"


class Race:
    """Times settings on one real batch and keeps the fastest whose loss agrees with fp32 contiguous."""

    def __init__(self, draft: Plan, network: torch.nn.Module, crops: Samples, device: str, wanted: TrainParams) -> None:
        assert draft.recipe is not None
        self.seed, self.of, self.recipe, self.device, self.wanted = draft.seed, draft.of, draft.recipe, device, wanted
        self.network = copy.deepcopy(network)
        for module in self.network.modules():  # its draws follow memory order, so losses would differ by chance
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
        mine = range(0, self.recipe.batch, wanted.devices * wanted.num_nodes)
        self.images, self.labels = collate_of(crops)([crops[i] for i in mine])
        self.reference, self.tolerance = self._reference_loss()
        self._first_s: dict[Setting, float] = {}

    def run(self) -> list[Timing]:
        """The table of what was measured; the verdict of the winner is `CHOSEN`."""
        timings: list[Timing] = []
        began = time.perf_counter()
        for setting in settings(self.wanted, self.device):
            best = fastest(timings)
            if best and time.perf_counter() - began > self._seconds(best):
                verdict = "not tried: the budget is short"
                timings.append(Timing(setting=setting, ms_per_step=None, loss_difference=None, verdict=verdict))
            else:
                timings.append(self._time(setting, best))
        if fastest(timings) is None:
            plain = self._time(Setting(precision="fp32", channels_last=False), None)
            timings.append(plain.model_copy(update={"verdict": _AGREES}))
        timings += self._compiled(fastest(timings))
        winner = fastest(timings)
        return [t.model_copy(update={"verdict": CHOSEN}) if t is winner else t for t in timings]

    def compile_seconds(self, setting: Setting) -> float:
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
            draw_from(self.seed, number)
            with torch.no_grad():
                losses.append(float(cost(network, (self.images.to(device), self.labels), device)))
        mean = fmean(losses)
        return mean, max(LOSS_TOLERANCE * abs(mean), 3 * pstdev(losses))

    def _time(self, setting: Setting, best: Timing | None) -> Timing:
        stepper = Stepper(copy.deepcopy(self.network), self.of, self.recipe, setting, self.device)
        losses: list[torch.Tensor] = []
        least = math.inf
        for number in range(4):  # the first one prepares kernels
            began = time.perf_counter()
            losses.append(stepper.step(number, self.images, self.labels, self.seed))
            wait(self.device)
            took = time.perf_counter() - began
            self._first_s.setdefault(setting, took)
            least = min(least, took * 1000) if number else least
            if number and (least > SLOW_MS or (best and least > 1.25 * (best.ms_per_step or math.inf))):
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


def _cheaper_steps(stepper: Stepper, loop: Loop, crops: Samples, wanted: TrainParams) -> list[tuple[float, float]]:
    """The first steps, where they take less than the others: their share of all, and their milliseconds."""
    found = []
    if isinstance(crops, Progressive):
        found.append((wanted.progressive_share, loop.time(stepper, crops.small)))
    if wanted.freeze_encoder:
        switch = encoder_switch(stepper.network)
        switch(True)
        found.append((wanted.freeze_encoder, loop.time(stepper, crops)))
        switch(False)
    return found


def _time_validation(stepper: Stepper, draft: Plan, classes: ClassTable, val: Reader) -> float:
    """Milliseconds for one look at the validation split, from a few of its images."""
    segmenter = validator(draft, stepper, classes)
    indices = sorted(set(range(0, len(val), max(1, len(val) // 4))))[:4]
    score_split(segmenter, val, indices[:1])
    began = time.perf_counter()
    score_split(segmenter, val, indices)
    return (time.perf_counter() - began) * 1000 / len(indices) * len(val)


def _reasons(
    wanted: TrainParams, recipe: Recipe, execution: Execution, validations: int, besides: float
) -> dict[str, str]:
    timed = [t for t in execution.timings if t.ms_per_step]
    slowest, chosen = max(timed, key=lambda t: t.ms_per_step or 0), next(t for t in timed if t.verdict == CHOSEN)
    factor = (slowest.ms_per_step or 0) / (chosen.ms_per_step or 1)
    rate = recipe.batch * 1000 / execution.ms_per_step
    return {
        "steps": f"{recipe.steps}{' a member' if wanted.folds else ''} for a budget of {wanted.budget}: "
        f"{execution.ms_per_step:.0f} ms a step, "
        f"{validations} validations of {execution.ms_per_validation / 1000:.1f} s"
        + (f", {besides:.0f} s for planning and for what is chosen after the last step" if besides else ""),
        "execution": f"{execution.setting}: {factor:.1f} times as fast as the slowest setting tried, {rate:.1f} images/s",
    }
