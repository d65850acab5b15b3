"""How the steps of a plan are computed here: the winner of the race of settings, timed in the real loop, and steps counted from a
wall-clock budget."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace

import torch

from segpipe.config import TrainParams, parse_budget
from segpipe.samples import ClassTable
from segpipe.training.machine import choose_device, peak_memory_mib, this_machine, worker_counts
from segpipe.training.optim.freezing import encoder_of, encoder_switch
from segpipe.training.optim.schedules import warmup_steps
from segpipe.training.plan import Execution, Plan, Recipe
from segpipe.training.planning.budget import (
    LAUNCH_S,
    PLAN_START_S,
    budget_seconds,
    count_steps,
    finishing_seconds,
    mean_step_ms,
)
from segpipe.training.planning.loop_benchmark import LoopBenchmark, choose_workers, exchange_ms, with_exchange
from segpipe.training.planning.lr_finder import find_learning_rate
from segpipe.training.planning.precision_benchmark import CHOSEN, PrecisionBenchmark
from segpipe.training.sampling.crops import Reader, Samples, batches
from segpipe.training.sampling.progressive import Progressive
from segpipe.training.scoring import score_split, segmenter_spec, validation_segmenter
from segpipe.training.step import Stepper, configure_process
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import step_parts

_CHECKPOINT_S = 30.0


@dataclass(frozen=True)
class Measured:
    """What `measure` found."""

    recipe: Recipe
    execution: Execution
    reasons: dict[str, str]


def measure(
    draft: Plan,
    network: torch.nn.Module,
    wanted: TrainParams,
    classes: ClassTable,
    train: Reader,
    val: Reader,
    began: float,
) -> Measured:
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
    configure_process(max(1, threads // wanted.devices) if device == "cpu" else threads)
    kind, amount = parse_budget(wanted.budget)
    crops = samples_of(train, draft)
    race = PrecisionBenchmark(draft, network, crops, device, wanted)
    timings = race.run()
    chosen = next(t for t in timings if t.verdict == CHOSEN)
    setting = chosen.setting
    stepper = Stepper(copy.deepcopy(network), draft.model_family, recipe, setting, device)
    seconds = min(4.0, 0.04 * budget_seconds(wanted, chosen.ms_per_step or 0))
    counts = worker_counts(device, wanted.devices) if wanted.workers is None else [wanted.workers]
    loop = LoopBenchmark(counts[0], draft.seed, ranks, seconds)
    worker_ms = choose_workers(counts, loop, stepper, crops, chosen.ms_per_step or 0)
    workers, ms_step = next(iter(worker_ms.items()))
    loop = replace(loop, workers=workers)
    ms_val = _time_validation(stepper, draft, classes, val)
    plain = samples_of(train, draft.model_copy(update={"recipe": recipe.model_copy(update={"augment": "off"})}))
    batch = next(batches(crops, recipe, 0, 0, 1, ranks=ranks))
    parts = step_parts(stepper, *batch, draft.seed, plain, crops, ms_step)
    cheaper = _cheaper_steps(stepper, loop, crops, wanted)
    besides = PLAN_START_S
    besides += finishing_seconds(draft, segmenter_spec(draft, classes), val, ms_val, setting.precision)
    besides += race.compile_seconds(setting) * (1 + len(cheaper)) * (wanted.folds or 1)
    found = {"workers": _workers_in_words(wanted, worker_ms)}
    if wanted.learning_rate == "auto":
        tried = Stepper(copy.deepcopy(network), draft.model_family, recipe.model_copy(update={"ema": 0.0}), setting, device)
        test = find_learning_rate(tried, crops, workers, draft.seed, budget_seconds(wanted, ms_step), ms_step * ranks)
        recipe = recipe.model_copy(update={"learning_rate": test.rate})
        found["learning rate"] = test.words
    configure_process(threads)
    execution = Execution(
        setting=setting,
        devices=wanted.devices,
        nodes=wanted.num_nodes,
        workers=workers,
        ms_per_step=round(ms_step, 1),
        step_ms={name: round(ms, 2) for name, ms in parts.items()},
        ms_per_validation=round(ms_val, 1),
        peak_memory_mib=peak_memory_mib(device),
        timings=timings,
        machine=this_machine(device),
    )
    exchange = 0.0
    if kind == "seconds" and wanted.devices > 1:
        exchange = exchange_ms(draft.model_copy(update={"execution": execution}), train, loop, ms_step)
        execution = with_exchange(execution, exchange)
        besides += LAUNCH_S
    besides += time.perf_counter() - began
    ms_mean, ms_share = mean_step_ms(ms_step, cheaper) + exchange, ms_val * math.ceil(len(val) / ranks) / len(val)
    steps, validations = count_steps(
        kind, amount, len(train), recipe.batch, ms_mean, ms_share, besides, wanted.folds or 1, wanted.validations
    )
    timed = _scheduled(recipe, wanted, steps, validations, ms_mean)
    spent = besides if kind == "seconds" else 0.0
    return Measured(timed, execution, _reasons(wanted, timed, execution, validations, spent) | found)


def _scheduled(recipe: Recipe, wanted: TrainParams, steps: int, validations: int, ms_mean: float) -> Recipe:
    """The recipe with all that is counted in steps."""
    schedule = {
        "steps": steps,
        "freeze_steps": round((wanted.freeze_encoder or 0) * steps),
        "warmup_steps": warmup_steps(steps, recipe.schedule, wanted.warmup),
        "val_every": math.ceil(steps / validations),
        "checkpoint_every": max(1, round(_CHECKPOINT_S * 1000 / ms_mean)),
        "first": recipe.first and recipe.first.model_copy(update={"steps": round(wanted.progressive_share * steps)}),
    }
    return recipe.model_copy(update=schedule)


def _workers_in_words(wanted: TrainParams, worker_ms: dict[int, float]) -> str:
    (workers, ms), *others = worker_ms.items()
    who = {0: "the training itself prepares", 1: "a process of its own prepares"}.get(
        workers, f"{workers} processes prepare"
    )
    if wanted.workers is not None:
        return f"{who} the batches, as set"
    told = ", ".join(f"{count or 'none'} {other:.0f}" for count, other in others)
    return f"{who} the batches" + (f": {ms:.0f} ms a step; with {told}" if others else "")


def _cheaper_steps(
    stepper: Stepper, loop: LoopBenchmark, crops: Samples, wanted: TrainParams
) -> list[tuple[float, float]]:
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
    segmenter = validation_segmenter(draft, stepper, classes)
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
