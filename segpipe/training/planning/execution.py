"""The execution of a plan on this machine: the setting and speed of the steps, and the number of steps for the budget."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from segpipe.config import TrainParams, parse_budget
from segpipe.training.finishing.postprocess_search import has_choices
from segpipe.training.folds import spread_evenly
from segpipe.training.machine import choose_device, peak_memory_mib, this_machine
from segpipe.training.optim.freezing import encoder_of
from segpipe.training.optim.schedules import warmup_steps
from segpipe.training.plan import Execution, NetworkPlan, Recipe
from segpipe.training.planning.budget import (
    COMMAND_S,
    FIRST_BATCHES_S,
    LAUNCH_S,
    FinishingTime,
    count_steps,
    finishing_time,
    mean_step_ms,
)
from segpipe.training.planning.lr_finder import find_learning_rate
from segpipe.training.sampling.crops import Reader, Samples
from segpipe.training.scoring import finished_segmenter, score_split, segmenter_spec, validation_segmenter
from segpipe.training.speed.loop_benchmark import exchange_ms, with_exchange
from segpipe.training.speed.precision_benchmark import CHOSEN
from segpipe.training.speed.step_speed import SpeedMeasurement, StepSpeed, cheaper_shares
from segpipe.training.speed.time_limits import budget_seconds, has_short_budget
from segpipe.training.step import Stepper, configure_process
from segpipe.words import counted

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter
    from segpipe.training.planning.plan_draft import PlanDraft

_CHECKPOINT_S = 30.0
"""Seconds between checkpoints."""
_VALIDATION_IMAGES = 4
"""Images on which a validation is timed."""
_SHORT_VALIDATION_IMAGES = 2
"""The same if the budget is short."""


def measure(draft: PlanDraft, network: torch.nn.Module) -> NetworkPlan:
    """Find the setting and the speed of the steps, time a validation, and turn the budget into steps.

    What is known from earlier plans is not measured again. Otherwise this takes about 15 s with small networks on two cores, and less
    if the budget is short. If several processes will train, this one measures the steps of one: its share of each batch, with its share
    of the cores. For a wall-clock budget, the processes of this machine then run at the same time for a moment.

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
    measurement = SpeedMeasurement(plan, network, draft.train, settings, device)
    speed = measurement.run(draft.reuse_speeds)
    values, stepper = speed.values, speed.stepper
    ms_step = values.ms_per_step
    ms_image, finishing = _time_validation(draft, stepper)
    compilations = (1 + len(values.ms_cheaper)) * (settings.folds or 1)
    overhead_s = values.compile_s * compilations
    recipe, rate_reason = _find_learning_rate(draft, network, stepper, measurement.crops, values.workers, ms_step)
    configure_process(threads)
    images = _count_images(draft, finishing)
    execution = Execution(
        setting=values.setting,
        devices=settings.devices,
        nodes=settings.num_nodes,
        workers=values.workers,
        ms_per_step=round(ms_step, 1),
        step_ms={name: round(ms, 2) for name, ms in values.step_ms.items()},
        ms_per_validation=round(ms_image * images, 1),
        peak_memory_mib=max(values.peak_memory_mib, peak_memory_mib(device)),
        timings=values.timings,
        machine=this_machine(device),
    )
    ms_mean = mean_step_ms(ms_step, zip(cheaper_shares(plan, settings), values.ms_cheaper, strict=True))
    if parse_budget(settings.budget)[0] == "seconds" and settings.devices > 1:
        loop = measurement.loop(values.workers, ms_step)
        exchange = exchange_ms(draft.network_plan(plan.recipe, execution), draft.train, loop, ms_step)
        execution = with_exchange(execution, exchange)
        ms_mean += exchange
        overhead_s += LAUNCH_S
    overhead_s += _overhead_s(draft) + finishing.seconds(images)
    recipe = recipe.model_copy(update={"val_images": images if images < len(draft.val) else None})
    recipe = _count_in_steps(draft, recipe, execution, ms_mean, finishing.ms_last * images, overhead_s)
    draft.explain("workers", _describe_workers(settings, speed))
    draft.explain("execution", _describe_execution(recipe, execution, speed))
    if rate_reason:
        draft.explain("learning rate", rate_reason)
    return draft.network_plan(recipe, execution)


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


def _count_images(draft: PlanDraft, finishing: FinishingTime) -> int:
    """Return the number of validation images that the budget pays for."""
    (kind, amount), images = parse_budget(draft.settings.budget), len(draft.val)
    if kind != "seconds" or draft.settings.folds:
        return images
    count = finishing.affordable_images(amount, images)
    if count < images:
        draft.explain(
            "validation images",
            f"{count} of {images}, evenly spread: more would take more than their share of the budget; evaluation uses all",
        )
    return count


def _overhead_s(draft: PlanDraft) -> float:
    """Return the seconds for planning so far, and for the start of both commands."""
    return 2 * COMMAND_S + time.perf_counter() - draft.started + draft.start_up_s + FIRST_BATCHES_S


def _count_in_steps(
    draft: PlanDraft, recipe: Recipe, execution: Execution, ms_mean: float, ms_last: float, overhead_s: float
) -> Recipe:
    """Return the recipe with the number of steps, and everything that is counted in steps.

    Args:
        draft: the plan so far; reasons are recorded in it.
        recipe: the recipe, with placeholders.
        execution: the execution.
        ms_mean: mean milliseconds per step.
        ms_last: milliseconds of the last validation, if one process makes it.
        overhead_s: seconds for everything except steps, validations and checkpoints.
    """
    settings = draft.settings
    kind, amount = parse_budget(settings.budget)
    images = recipe.val_images or len(draft.val)
    share = math.ceil(images / draft.world_size) / images
    steps, validations = count_steps(
        kind,
        amount,
        len(draft.train),
        recipe.batch,
        ms_mean,
        execution.ms_per_validation * share,
        overhead_s,
        settings.folds or 1,
        settings.validations,
        ms_last * share,
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
    return recipe


def _time_validation(draft: PlanDraft, stepper: Stepper) -> tuple[float, FinishingTime]:
    """Time a few images. Returns the milliseconds per image of a validation, and the time of the finished model."""
    plan, classes, val = draft.plan, draft.fingerprint.classes, draft.val
    count = _SHORT_VALIDATION_IMAGES if has_short_budget(draft.settings) else _VALIDATION_IMAGES
    images = spread_evenly(val, count)
    ms_image = _image_ms(validation_segmenter(plan, stepper, classes), images)
    if not has_choices(plan, val):
        return ms_image, FinishingTime(ms_image)
    ms_finished = _image_ms(finished_segmenter(plan, stepper, classes), images)
    shares_outputs = draft.world_size == 1 and not draft.settings.folds
    finishing = finishing_time(plan, segmenter_spec(plan, classes), val, ms_finished, shares_outputs)
    return ms_image, finishing if shares_outputs else replace(finishing, ms_last=ms_image)


def _image_ms(segmenter: Segmenter, images: Reader) -> float:
    """Return the milliseconds per image. The first image is segmented twice, because it prepares kernels."""
    score_split(segmenter, images, [0])
    started = time.perf_counter()
    score_split(segmenter, images)
    return (time.perf_counter() - started) * 1000 / len(images)


def _describe_workers(settings: TrainParams, speed: StepSpeed) -> str:
    (workers, ms), *others = speed.ms_by_workers.items()
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
    overhead = (
        f", {overhead_s:.0f} s for planning, for the start and for what is chosen after the last step"
        if overhead_s
        else ""
    )
    return (
        f"{recipe.steps}{' per member' if settings.folds else ''} for a budget of {settings.budget}: "
        f"{execution.ms_per_step:.0f} ms per step, {counted(validations, 'validation')} of "
        f"{execution.ms_per_validation / 1000:.1f} s{overhead}"
    )


def _describe_execution(recipe: Recipe, execution: Execution, speed: StepSpeed) -> str:
    timed = [timing for timing in execution.timings if timing.ms_per_step]
    chosen = next(timing for timing in timed if timing.verdict == CHOSEN)
    factor = max(timing.ms_per_step or 0 for timing in timed) / (chosen.ms_per_step or 1)
    reason = (
        f"{factor:.1f} times as fast as the slowest setting tried"
        if len(timed) > 1
        else "the most likely one: the budget leaves no time to compare"
        if len(execution.timings) > 1
        else "as set"
    )
    rate = recipe.batch * 1000 / execution.ms_per_step
    source = f"; known from an earlier plan on this machine ({speed.source})" if speed.source else ""
    return f"{execution.setting}: {reason}, {rate:.1f} images/s{source}"
