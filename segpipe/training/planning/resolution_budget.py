"""Choose the resolution and the size of the first crops, so that steps are cheaper if too few would fit into the budget."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segpipe.config import parse_budget
from segpipe.errors import ConfigError
from segpipe.models.registry import build_network
from segpipe.models.semantic.encoder_decoders import EncoderConfig, shrink_factor
from segpipe.models.semantic.reduced_resolution import reduce_resolution
from segpipe.training.machine import choose_device, synchronize
from segpipe.training.memory import free_unused_memory, is_out_of_memory
from segpipe.training.plan import FirstCrops
from segpipe.training.planning.recipe import SMALL_BATCH, add_distance_channel, can_shrink, choose_image_recipe
from segpipe.training.sampling.crops import collate_of
from segpipe.training.speed.precision_benchmark import candidate_settings
from segpipe.training.speed.speed_cache import KnownPrice, recall, remember, speed_key
from segpipe.training.speed.time_limits import has_short_budget
from segpipe.training.step import Stepper, configure_process
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import SLOW_STEP_MS

if TYPE_CHECKING:
    from pydantic import BaseModel

    from segpipe.training.plan import RecipePlan
    from segpipe.training.planning.plan_draft import PlanDraft

_FIRST_CROPS_FACTOR = 2
_MIN_DEEPEST_VOXELS = 8
"""Voxels of the deepest level over which a network for volumes can still normalise."""

MIN_STEPS = 75
"""Below this number of steps, half the resolution is considered. On street scenes, networks on VGG16 got 31 to 54 steps in three minutes
at full resolution; an fpn with 94 steps scored alike at either resolution."""
MIN_STEPS_GAIN = 1.3
"""Half the resolution must buy this many times the steps."""
_STEPS_SHARE = 0.75
"""About the share of a budget that is left for the steps."""
_TIMED_CROPS = 2
"""Crops of the step that is timed."""
_TIMED_STEPS, _TIMED_STEPS_OF_SHORT = 4, 3
"""Steps that are timed, and the same if the budget is short. The first prepares kernels and is not counted."""


@dataclass(frozen=True)
class StepPrice:
    """The cost of training on one pixel, and the milliseconds that a budget has for all steps."""

    ms_per_pixel: float
    budget_ms: float
    """Infinite if the budget is counted in steps."""

    def steps(self, plan: RecipePlan) -> float:
        """Estimate how many steps of a plan, at the resolution that was timed, fit into the budget."""
        edge = plan.recipe.patch / plan.shrink
        return self.budget_ms / (self.ms_per_pixel * plan.recipe.batch * edge**2)


def choose_resolution(draft: PlanDraft) -> torch.nn.Module:
    """Choose the recipe of a network for images, at a resolution and with a batch size that fit the budget.

    Args:
        draft: the plan so far; recipe, resolution and reasons are recorded in it.

    Returns:
        The network.
    """
    config, settings = draft.config, draft.settings
    is_open = isinstance(config, EncoderConfig) and config.shrink == "auto"
    config = config.model_copy(update={"shrink": 1}) if is_open else config
    plan = _draw_up(draft, config)
    with draft.counted_as_start_up():
        network = build_network(
            plan.family, config, draft.fingerprint.channels, plan.outputs.channels, plan.seed, plan.inherited
        )
    if draft.family.kind != "network":
        return network
    price = measure_step_price(draft, network)
    reason = f"the budget would buy only {price.steps(plan):.0f} steps of {plan.recipe.batch} crops"
    if price.steps(plan) < MIN_STEPS and is_open and plan.inherited is None and can_shrink(draft.fingerprint):
        half_config, half_network = (
            config.model_copy(update={"shrink": 2}),
            reduce_resolution(copy.deepcopy(network), 2),
        )
        half_plan = _draw_up(draft, half_config)
        half_price = measure_step_price(draft, half_network)
        # The steps of a light network get hardly shorter.
        if half_price.steps(half_plan) > MIN_STEPS_GAIN * price.steps(plan):
            config, plan, network, price = half_config, half_plan, half_network, half_price
            draft.explain("resolution", f"half of the images': at full resolution, {reason}")
        else:
            plan = _draw_up(draft, config)
    elif plan.shrink > 1:
        draft.explain("resolution", f"1/{plan.shrink} of the images', as set")
    parts = settings.accumulate * draft.world_size
    if price.steps(plan) < MIN_STEPS and settings.batch is None and parts == 1 and draft.family.batch > SMALL_BATCH:
        _draw_up(draft, config, batch=SMALL_BATCH)
        where = " at full resolution" if "resolution" in draft.reasons else ""
        draft.explain("batch", f"{SMALL_BATCH}: {reason}{where}")
    return network


def _draw_up(draft: PlanDraft, config: BaseModel, batch: int | None = None) -> RecipePlan:
    """Choose the recipe for these settings of the family. batch: crops per step; None: as set, or the family's default."""
    draft.config, shrink = config, shrink_factor(config)
    recipe = add_distance_channel(draft, choose_image_recipe(draft, shrink, batch))
    multiple = draft.family.stride * shrink
    first = choose_first_crops(draft, (recipe.patch,) * 2, (multiple, multiple))
    draft.choose(recipe=recipe.model_copy(update={"first": first}))
    return draft.plan


def measure_step_price(draft: PlanDraft, network: torch.nn.Module) -> StepPrice:
    """Return the price of a step: known from an earlier plan, or measured by a few steps on two crops in the most likely setting.

    If not even these fit into memory, steps have no price: `segpipe.training.planning.footprint` handles that.

    Args:
        draft: the plan so far.
        network: its network; a copy is trained.
    """
    plan, settings = draft.plan, draft.settings
    kind, amount = parse_budget(settings.budget)
    if kind != "seconds":
        return StepPrice(1.0, math.inf)
    key = speed_key(plan, settings, choose_device(settings.accelerator))
    known = recall(key, KnownPrice) if draft.reuse_speeds else None
    try:
        ms = known.ms_per_step if known else _step_ms(draft, network)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_unused_memory()
        return StepPrice(1.0, math.inf)
    if known is None:
        remember(KnownPrice(key=key, ms_per_step=ms))
    edge = plan.recipe.patch / plan.shrink
    # On a CPU, the processes of a machine share its cores.
    side_by_side = settings.num_nodes * (settings.devices if choose_device(settings.accelerator) == "cuda" else 1)
    budget_ms = _STEPS_SHARE * amount * 1000 * side_by_side / (settings.folds or 1)
    return StepPrice(ms / (_TIMED_CROPS * edge**2), budget_ms)


def _step_ms(draft: PlanDraft, network: torch.nn.Module) -> float:
    plan, settings = draft.plan, draft.settings
    device = choose_device(settings.accelerator)
    configure_process(torch.get_num_threads())
    crops = samples_of(draft.train, plan)
    images, labels = collate_of(crops)([crops[position] for position in range(_TIMED_CROPS)])
    recipe = plan.recipe.model_copy(update={"accumulate": 1})
    setting = candidate_settings(settings, device)[0]
    with draft.counted_as_start_up():
        stepper = Stepper(copy.deepcopy(network), plan.model_family, recipe, setting, device)
    fastest_ms = math.inf
    for number in range(_TIMED_STEPS_OF_SHORT if has_short_budget(settings) else _TIMED_STEPS):
        started = time.perf_counter()
        stepper.step(number, images, labels, plan.seed)
        synchronize(device)
        ms = (time.perf_counter() - started) * 1000
        fastest_ms = min(fastest_ms, ms) if number else fastest_ms
        if number and ms > SLOW_STEP_MS:
            break
    return fastest_ms


def choose_first_crops(draft: PlanDraft, edges: tuple[int, ...], multiples: tuple[int, ...]) -> FirstCrops | None:
    """Choose the crops of the first steps: half of the full ones.

    Args:
        draft: the plan so far; the reason is recorded in it.
        edges: size of a full crop, by axis.
        multiples: by axis, the network accepts multiples of this.

    Returns:
        The crops, with a placeholder of 0 for the number of steps; None if progressive training is off or crops cannot be smaller.

    Raises:
        ConfigError: The family is a detector.
    """
    mode, share = draft.settings.progressive, draft.settings.progressive_share
    if mode == "off":
        return None
    if draft.family.kind != "network":
        raise ConfigError(
            f"{draft.family.name} expects instances of one size and cannot start with smaller crops",
            where="train.progressive",
            found=mode,
            fix="set it to off for this candidate: `train: {progressive: off}` under it",
        )
    half = tuple(max(m, edge // _FIRST_CROPS_FACTOR // m * m) for edge, m in zip(edges, multiples, strict=True))
    deepest_voxels = math.prod(edge // m for edge, m in zip(half, multiples, strict=True))
    if half == edges or (len(edges) == 3 and deepest_voxels < _MIN_DEEPEST_VOXELS):
        draft.explain("progressive", "no: crops are already as small as this network accepts")
        return None
    size = " x ".join(map(str, half))
    view = "at half the resolution" if mode == "scale" else "of the same images"
    draft.explain("progressive", f"the first {share:.0%} of the steps see crops of {size}, {view}")
    return FirstCrops(steps=0, edges=half, shrink=_FIRST_CROPS_FACTOR if mode == "scale" else 1)
