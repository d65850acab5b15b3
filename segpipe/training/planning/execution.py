"""The execution of a plan on this machine: the fastest setting, timed in the real loop, and the number of steps for the budget."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from segpipe.config import TrainParams, parse_budget
from segpipe.training.machine import choose_device, peak_memory_mib, this_machine, worker_counts
from segpipe.training.optim.freezing import encoder_of, encoder_switch
from segpipe.training.optim.schedules import warmup_steps
from segpipe.training.plan import Execution, NetworkPlan, Recipe, RecipePlan, StepSetting
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

if TYPE_CHECKING:
    from segpipe.samples import ClassTable
    from segpipe.training.planning.plan_draft import PlanDraft

_CHECKPOINT_S = 30.0
"""Seconds between checkpoints."""
_MAX_LOOP_S, _MAX_LOOP_SHARE = 4.0, 0.04
"""The longest time for which the loop is run, in seconds and as a share of the budget."""
_VALIDATION_IMAGES = 4
"""Images on which a validation is timed."""


def measure(draft: PlanDraft, network: torch.nn.Module) -> NetworkPlan:
    """Time the settings on a real batch and the real loop with the fastest of them, and turn the budget into steps.

    This takes about 15 s with small networks on two cores, and at most about 15 % of a wall-clock budget. If several processes will
    train, this one measures the steps of one: its share of each batch, with its share of the cores. For a wall-clock budget, the
    processes of this machine then run at the same time for a moment.

    Args:
        draft: the plan so far; reasons are recorded in it.
        network: its network; copies are trained.

    Returns:
        The complete plan.

    Raises:
        ConfigError: The budget is too short, or the network has no encoder that could be frozen.
        SegpipeError: The processes cannot run at the same time.
    """
    settings, plan = draft.settings, draft.plan
    if settings.freeze_encoder:
        encoder_of(network)
    device, threads = choose_device(settings.accelerator), torch.get_num_threads()
    configure_process(max(1, threads // settings.devices) if device == "cpu" else threads)
    crops = samples_of(draft.train, plan)
    benchmark = PrecisionBenchmark(plan, network, crops, device, settings)
    timings = benchmark.run()
    chosen = next(timing for timing in timings if timing.verdict == CHOSEN)
    setting, chosen_ms = chosen.setting, chosen.ms_per_step or 0
    stepper = Stepper(copy.deepcopy(network), draft.family, plan.recipe, setting, device)
    seconds = min(_MAX_LOOP_S, _MAX_LOOP_SHARE * budget_seconds(settings, chosen_ms))
    counts = worker_counts(device, settings.devices) if settings.workers is None else [settings.workers]
    loop = LoopBenchmark(counts[0], plan.seed, draft.world_size, seconds)
    ms_by_workers = choose_workers(counts, loop, stepper, crops, chosen_ms)
    workers, ms_step = next(iter(ms_by_workers.items()))
    loop = replace(loop, workers=workers)
    ms_val = _time_validation(stepper, plan, draft.fingerprint.classes, draft.val)
    parts = _time_parts(draft, stepper, crops, ms_step)
    cheaper = _time_cheaper_steps(stepper, loop, crops, settings)
    compilations = (1 + len(cheaper)) * (settings.folds or 1)
    overhead_s = _overhead_s(draft, ms_val, setting) + benchmark.compile_seconds(setting) * compilations
    recipe, rate_reason = _find_learning_rate(draft, network, stepper, crops, workers, ms_step)
    configure_process(threads)
    execution = Execution(
        setting=setting,
        devices=settings.devices,
        nodes=settings.num_nodes,
        workers=workers,
        ms_per_step=round(ms_step, 1),
        step_ms={name: round(ms, 2) for name, ms in parts.items()},
        ms_per_validation=round(ms_val, 1),
        peak_memory_mib=peak_memory_mib(device),
        timings=timings,
        machine=this_machine(device),
    )
    ms_mean = mean_step_ms(ms_step, cheaper)
    if parse_budget(settings.budget)[0] == "seconds" and settings.devices > 1:
        exchange = exchange_ms(draft.network_plan(plan.recipe, execution), draft.train, loop, ms_step)
        execution = with_exchange(execution, exchange)
        ms_mean += exchange
        overhead_s += LAUNCH_S
    overhead_s += time.perf_counter() - draft.started
    recipe = _count_in_steps(draft, recipe, execution, ms_mean, ms_val, overhead_s)
    draft.explain("workers", _describe_workers(settings, ms_by_workers))
    if rate_reason:
        draft.explain("learning rate", rate_reason)
    return draft.network_plan(recipe, execution)


def _overhead_s(draft: PlanDraft, ms_val: float, setting: StepSetting) -> float:
    """Return the seconds for the start of planning, and for everything after the last step."""
    spec = segmenter_spec(draft.plan, draft.fingerprint.classes)
    return PLAN_START_S + finishing_seconds(draft.plan, spec, draft.val, ms_val, setting.precision)


def _time_parts(draft: PlanDraft, stepper: Stepper, crops: Samples, ms_step: float) -> dict[str, float]:
    """Return the milliseconds per step of each part of a step."""
    plan = draft.plan
    plain_recipe = plan.recipe.model_copy(update={"augment": "off"})
    plain = samples_of(draft.train, plan.model_copy(update={"recipe": plain_recipe}))
    images, labels = next(batches(crops, plan.recipe, 0, 0, 1, world_size=draft.world_size))
    return step_parts(stepper, images, labels, plan.seed, plain, crops, ms_step)


def _find_learning_rate(
    draft: PlanDraft, network: torch.nn.Module, stepper: Stepper, crops: Samples, workers: int, ms_step: float
) -> tuple[Recipe, str]:
    """Return the recipe with its learning rate, and the reason for the rate if it was measured."""
    recipe, settings = draft.plan.recipe, draft.settings
    if settings.learning_rate != "auto":
        return recipe, ""
    without_average = recipe.model_copy(update={"ema": 0.0})
    device = stepper.fabric.device.type
    trained = Stepper(copy.deepcopy(network), draft.family, without_average, stepper.setting, device)
    seconds = budget_seconds(settings, ms_step)
    test = find_learning_rate(trained, crops, workers, draft.plan.seed, seconds, ms_step * draft.world_size)
    return recipe.model_copy(update={"learning_rate": test.rate}), test.words


def _count_in_steps(
    draft: PlanDraft, recipe: Recipe, execution: Execution, ms_mean: float, ms_val: float, overhead_s: float
) -> Recipe:
    """Return the recipe with the number of steps, and everything that is counted in steps."""
    settings, processes = draft.settings, draft.world_size
    kind, amount = parse_budget(settings.budget)
    ms_val_share = ms_val * math.ceil(len(draft.val) / processes) / len(draft.val)
    steps, validations = count_steps(
        kind,
        amount,
        len(draft.train),
        recipe.batch,
        ms_mean,
        ms_val_share,
        overhead_s,
        settings.folds or 1,
        settings.validations,
    )
    first_steps = round(settings.progressive_share * steps)
    recipe = recipe.model_copy(
        update={
            "steps": steps,
            "freeze_steps": round((settings.freeze_encoder or 0) * steps),
            "warmup_steps": warmup_steps(steps, recipe.schedule, settings.warmup),
            "val_every": math.ceil(steps / validations),
            "checkpoint_every": max(1, round(_CHECKPOINT_S * 1000 / ms_mean)),
            "first": recipe.first and recipe.first.model_copy(update={"steps": first_steps}),
        }
    )
    charged_s = overhead_s if kind == "seconds" else 0.0
    draft.explain("steps", _describe_steps(settings, recipe, execution, validations, charged_s))
    draft.explain("execution", _describe_execution(recipe, execution))
    return recipe


def _time_cheaper_steps(
    stepper: Stepper, loop: LoopBenchmark, crops: Samples, settings: TrainParams
) -> list[tuple[float, float]]:
    """Time the kinds of first steps that are cheaper. Returns their shares of all steps, and their milliseconds."""
    cheaper = []
    if isinstance(crops, Progressive):
        cheaper.append((settings.progressive_share, loop.time(stepper, crops.small)))
    if settings.freeze_encoder:
        freeze = encoder_switch(stepper.network)
        freeze(True)
        cheaper.append((settings.freeze_encoder, loop.time(stepper, crops)))
        freeze(False)
    return cheaper


def _time_validation(stepper: Stepper, plan: RecipePlan, classes: ClassTable, val: Reader) -> float:
    """Return the milliseconds of one validation, estimated from a few images."""
    segmenter = validation_segmenter(plan, stepper, classes)
    indices = sorted(set(range(0, len(val), max(1, len(val) // _VALIDATION_IMAGES))))[:_VALIDATION_IMAGES]
    score_split(segmenter, val, indices[:1])
    started = time.perf_counter()
    score_split(segmenter, val, indices)
    return (time.perf_counter() - started) * 1000 / len(indices) * len(val)


def _describe_workers(settings: TrainParams, ms_by_workers: dict[int, float]) -> str:
    (workers, ms), *others = ms_by_workers.items()
    subject = {0: "the training process prepares", 1: "one additional process prepares"}.get(
        workers, f"{workers} processes prepare"
    )
    if settings.workers is not None:
        return f"{subject} the batches, as set"
    listed = ", ".join(f"{count or 'none'} {other_ms:.0f}" for count, other_ms in others)
    return f"{subject} the batches" + (f": {ms:.0f} ms per step; with {listed}" if others else "")


def _describe_steps(
    settings: TrainParams, recipe: Recipe, execution: Execution, validations: int, overhead_s: float
) -> str:
    overhead = f", {overhead_s:.0f} s for planning and for what is chosen after the last step" if overhead_s else ""
    return (
        f"{recipe.steps}{' per member' if settings.folds else ''} for a budget of {settings.budget}: "
        f"{execution.ms_per_step:.0f} ms per step, {validations} validations of {execution.ms_per_validation / 1000:.1f} s{overhead}"
    )


def _describe_execution(recipe: Recipe, execution: Execution) -> str:
    timed = [timing for timing in execution.timings if timing.ms_per_step]
    slowest = max(timed, key=lambda timing: timing.ms_per_step or 0)
    chosen = next(timing for timing in timed if timing.verdict == CHOSEN)
    factor = (slowest.ms_per_step or 0) / (chosen.ms_per_step or 1)
    rate = recipe.batch * 1000 / execution.ms_per_step
    return f"{execution.setting}: {factor:.1f} times as fast as the slowest setting tried, {rate:.1f} images/s"
