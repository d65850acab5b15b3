"""How the steps of a plan are computed here: settings raced against each other, and steps counted from a wall-clock budget."""

from __future__ import annotations

import copy
import gc
import math
import time
from dataclasses import dataclass

import torch

from segpipe.config import TrainParams, parse_budget
from segpipe.errors import ConfigError
from segpipe.samples import ClassTable
from segpipe.training.batches import Reader, Samples, batches, collate_of
from segpipe.training.bottleneck import step_parts
from segpipe.training.finishing import looks_to_finish
from segpipe.training.freezing import encoder_of
from segpipe.training.machine import choose_device, choose_workers, has_bf16, peak_memory_mib, this_machine, wait
from segpipe.training.plan import Execution, Plan, Recipe, Setting, Timing
from segpipe.training.rate_test import find_rate
from segpipe.training.schedules import warmup_steps
from segpipe.training.scoring import score_split, validator
from segpipe.training.stepper import Stepper, draw_from, settle_process
from segpipe.training.tasks import objective_of, samples_of

LOSS_TOLERANCE = 0.02
"""How far, relatively, the first loss under a setting may lie from that of fp32 contiguous."""
START_UP_S = 10.0
"""From the start of the `train` command to the first step: imports, the network, the first batches."""
LEAST_STEPS = 10
"""What a wall-clock budget must allow."""
_CHECKPOINT_S = 30.0
_COMPILE_BUDGET_S = {"cpu": 15 * 60.0, "cuda": 5 * 60.0}
"""Compiling takes a minute or more; a shorter training can't repay it."""
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.1
CHECKPOINT_SHARE = 0.01
"""Of the time of the steps: writing checkpoints and metrics."""


@dataclass(frozen=True)
class Measured:
    """What `measure` found."""

    recipe: Recipe
    execution: Execution
    reasons: dict[str, str]


def measure(
    draft: Plan, network: torch.nn.Module, wanted: TrainParams, classes: ClassTable, train: Reader, val: Reader
) -> Measured:
    """Race the settings on a real batch, time the real loop with the winner, and turn the budget into steps.

    Takes about 15 s with the small networks on two cores; never more than about 15 % of a wall-clock budget.
    """
    recipe = draft.recipe
    assert recipe is not None
    if wanted.freeze_encoder:
        encoder_of(network)
    device = choose_device(wanted.accelerator)
    settle_process(torch.get_num_threads())
    kind, amount = parse_budget(wanted.budget)
    crops = samples_of(train, draft)
    timings = Race(draft, network, crops, device, wanted).run()
    setting = next(t.setting for t in timings if t.verdict == CHOSEN)
    workers = choose_workers(device)
    stepper = Stepper(copy.deepcopy(network), draft.of, recipe, setting, device)
    loop_s = min(4.0, 0.04 * budget_seconds(wanted, next(t.ms_per_step or 0 for t in timings if t.verdict == CHOSEN)))
    ms_step = _time_loop(stepper, crops, workers, draft.seed, loop_s)
    ms_val = _time_validation(stepper, draft, classes, val)
    plain = samples_of(train, draft.model_copy(update={"recipe": recipe.model_copy(update={"augment": "off"})}))
    batch = next(batches(crops, recipe, 0, 0, 1))
    parts = step_parts(stepper, *batch, draft.seed, plain, crops, ms_step)
    besides = looks_to_finish(draft, val) * ms_val / 1000
    found: dict[str, str] = {}
    if wanted.learning_rate == "auto":
        began = time.perf_counter()
        tried = Stepper(copy.deepcopy(network), draft.of, recipe.model_copy(update={"ema": 0.0}), setting, device)
        test = find_rate(tried, crops, workers, draft.seed, budget_seconds(wanted, ms_step), ms_step)
        recipe = recipe.model_copy(update={"learning_rate": test.rate})
        found["learning rate"] = test.words
        besides += time.perf_counter() - began
    steps, validations = count_steps(kind, amount, len(train), recipe.batch, ms_step, ms_val, besides)
    execution = Execution(
        setting=setting, devices=wanted.devices, nodes=wanted.num_nodes, workers=workers, ms_per_step=round(ms_step, 1),
        step_ms={name: round(ms, 2) for name, ms in parts.items()}, ms_per_validation=round(ms_val, 1),
        peak_memory_mib=peak_memory_mib(device), timings=timings,
        machine=this_machine(device),
    )  # fmt: skip
    schedule = {
        "steps": steps,
        "freeze_steps": round((wanted.freeze_encoder or 0) * steps),
        "warmup_steps": warmup_steps(steps, recipe.schedule),
        "val_every": math.ceil(steps / validations),
        "checkpoint_every": max(1, round(_CHECKPOINT_S * 1000 / ms_step)),
    }
    timed = recipe.model_copy(update=schedule)
    return Measured(timed, execution, _reasons(wanted, timed, execution, validations) | found)


def settings(wanted: TrainParams, device: str) -> list[Setting]:
    """The settings to race, the likeliest winner first, so that the others can be dropped early."""
    precisions = ["bf16", "fp32"] if wanted.precision == "auto" else [wanted.precision]
    if wanted.precision == "auto" and not has_bf16(device):
        precisions = ["fp32"]
    formats = [True, False] if wanted.channels_last == "auto" else [wanted.channels_last]
    return [
        Setting(precision=p, channels_last=f, compile=wanted.compile is True)  # type: ignore[arg-type]
        for p in precisions
        for f in formats
    ]


def count_steps(
    kind: str, amount: float, n_train: int, batch: int, ms_step: float, ms_val: float, besides: float = 0.0
) -> tuple[int, int]:
    """Steps and validations for a budget. Seconds include start-up, validations (at most a tenth, but one), checkpoints, and the
    seconds `besides`: the range test of the learning rate, and what is chosen after the last step.

    Raises ConfigError where a wall-clock budget leaves fewer than `LEAST_STEPS` steps: a number that such a model earns says
    nothing of the model.
    """
    if kind != "seconds":
        steps = max(1, round(amount if kind == "steps" else amount * n_train / batch))
        return steps, min(_VALIDATIONS, steps)
    left = max(0.0, amount - START_UP_S - besides) * 1000
    validations = int(min(_VALIDATIONS, max(1.0, _VALIDATION_SHARE * left // max(ms_val, 1e-3))))
    steps = int((left - validations * ms_val) / (ms_step * (1 + CHECKPOINT_SHARE)))
    if steps < LEAST_STEPS:
        needed = START_UP_S + besides + (ms_val + LEAST_STEPS * ms_step * (1 + CHECKPOINT_SHARE)) / 1000
        raise ConfigError(
            "the budget is too short to learn anything", where="train.budget",
            found=f"{amount:.0f} s, which is {max(0, steps)} steps of {ms_step:.0f} ms beside {ms_val / 1000:.1f} s for a validation",
            expected=f"at least {math.ceil(needed)} s here",
            fix="give it more, or plan again when nothing else keeps this machine busy",
        )  # fmt: skip
    return steps, min(validations, steps)


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
        self.images, self.labels = collate_of(crops)([crops[i] for i in range(self.recipe.batch)])
        self.reference = self._reference_loss()

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

    def _seconds(self, best: Timing) -> float:
        """After how long no further setting is tried: when the next one could break the bound on the whole measurement."""
        budget = budget_seconds(self.wanted, best.ms_per_step or 0)
        return min(9.0, 0.06 * budget) if self.device == "cpu" else min(20.0, 0.1 * budget)

    def _reference_loss(self) -> float:
        network = copy.deepcopy(self.network).to(self.device).train()
        device = torch.device(self.device)
        draw_from(self.seed, 0)
        with torch.no_grad():
            return float(
                objective_of(self.of, self.recipe, device)(network, (self.images.to(device), self.labels), device)
            )

    def _time(self, setting: Setting, best: Timing | None) -> Timing:
        stepper = Stepper(copy.deepcopy(self.network), self.of, self.recipe, setting, self.device)
        losses: list[torch.Tensor] = []
        least = math.inf
        for number in range(4):  # the first one prepares kernels
            began = time.perf_counter()
            losses.append(stepper.step(number, self.images, self.labels, self.seed))
            wait(self.device)
            least = min(least, (time.perf_counter() - began) * 1000) if number else least
            if number and best and least > 1.25 * (best.ms_per_step or math.inf):
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
        difference = float(losses[0]) / self.reference - 1 if self.reference else 0.0
        verdict = _AGREES if abs(difference) <= LOSS_TOLERANCE else "refused: its loss is not that of fp32"
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


def budget_seconds(wanted: TrainParams, ms_step: float) -> float:
    """About how long a budget lasts; an epoch is taken for 15 steps, since what is decided here is only how long to measure."""
    kind, amount = parse_budget(wanted.budget)
    return amount if kind == "seconds" else amount * ms_step / 1000 * (1 if kind == "steps" else 15)


def fastest(timings: list[Timing]) -> Timing | None:
    """The fastest of the settings that agree."""
    return min((t for t in timings if t.verdict == _AGREES), key=lambda t: t.ms_per_step or math.inf, default=None)


def _time_loop(stepper: Stepper, crops: Samples, workers: int, seed: int, seconds: float) -> float:
    """Milliseconds a step of the real loop, batches included: the mean, because that is what adds up to a budget."""
    stream = batches(crops, stepper.recipe, workers, 0, 500, pin=stepper.fabric.device.type == "cuda")
    for number in range(2):
        stepper.step(number, *next(stream), seed)
    wait(stepper.fabric.device.type)
    count, began = 0, time.perf_counter()
    while count < 3 or (count < 400 and time.perf_counter() - began < seconds):
        stepper.step(2 + count, *next(stream), seed)
        count += 1
        if stepper.fabric.device.type == "cuda" and count % 10 == 0:
            wait("cuda")
    wait(stepper.fabric.device.type)
    return (time.perf_counter() - began) * 1000 / count


def _time_validation(stepper: Stepper, draft: Plan, classes: ClassTable, val: Reader) -> float:
    """Milliseconds for one look at the validation split, from a few of its images."""
    segmenter = validator(draft, stepper, classes)
    indices = sorted(set(range(0, len(val), max(1, len(val) // 4))))[:4]
    score_split(segmenter, val, indices[:1])
    began = time.perf_counter()
    score_split(segmenter, val, indices)
    return (time.perf_counter() - began) * 1000 / len(indices) * len(val)


def _reasons(wanted: TrainParams, recipe: Recipe, execution: Execution, validations: int) -> dict[str, str]:
    timed = [t for t in execution.timings if t.ms_per_step]
    slowest, chosen = max(timed, key=lambda t: t.ms_per_step or 0), next(t for t in timed if t.verdict == CHOSEN)
    factor = (slowest.ms_per_step or 0) / (chosen.ms_per_step or 1)
    rate = recipe.batch * 1000 / execution.ms_per_step
    return {
        "steps": f"{recipe.steps} for a budget of {wanted.budget}: {execution.ms_per_step:.0f} ms a step, "
        f"{validations} validations of {execution.ms_per_validation / 1000:.1f} s",
        "execution": f"{execution.setting}: {factor:.1f} times as fast as the slowest setting tried, {rate:.1f} images/s",
    }
