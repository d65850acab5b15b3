"""Plans of networks that are too slow for their budget at full resolution."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from segpipe.config import Params
from segpipe.errors import ConfigError
from segpipe.files import read_json
from segpipe.inference.trained_model import load_trained
from segpipe.models.registry import build_network
from segpipe.training.planning import planner, resolution_budget
from segpipe.training.planning.resolution_budget import MIN_STEPS, StepPrice, measure_step_price
from segpipe.training.scoring import segmenter_spec
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draft_of, draw, fingerprint_of, make_plan
from tests.worlds.trainings import tiny_plan

LARGE = MemoryReader([draw(i, height=288, width=320) for i in range(4)])
SLOW, FAST = StepPrice(1.0, 64 * 192**2 * 8), StepPrice(1.0, 120 * 192**2 * 8)
"""Prices at which a budget buys 64 and 120 steps of 8 crops of 192 pixels."""


@pytest.fixture
def plan(monkeypatch):
    """Makes the plan for a price, as far as it is chosen without measuring."""
    monkeypatch.setattr(planner, "_measure_within_memory", lambda draft, _: draft.plan)

    def make(price: StepPrice, reader=LARGE, train=None, half: StepPrice | None = None, **options):
        monkeypatch.setattr(
            resolution_budget, "measure_step_price", lambda draft, _: half if half and draft.plan.shrink == 2 else price
        )
        candidate = {"family": "unet", "encoder": "mobilenetv3_small_050", "encoder_weights": "none"} | options
        params = Params(candidates={"net": candidate}, train=train or {})
        return planner.plan_on("net", params, fingerprint_of(reader), reader, reader)

    return make


def test_the_steps_that_a_budget_buys():
    assert StepPrice(0.5, 1000.0).steps(make_plan(batch=2, patch=64)) == pytest.approx(1000 / (0.5 * 2 * 64**2))


def test_steps_have_a_price_only_in_a_budget_of_time(train_reader):
    plan = tiny_plan()
    draft = draft_of(train_reader, plan=plan, budget="60s")
    network = build_network("tiny", plan.model_family.config(), 3, 3, 0)
    before = [value.clone() for value in network.state_dict().values()]
    price = measure_step_price(draft, network)
    assert price.budget_ms == 45_000 and 0 < price.ms_per_pixel < 1
    assert all((a == b).all() for a, b in zip(before, network.state_dict().values(), strict=True))
    counted = draft_of(train_reader, plan=plan, budget="60 steps")
    assert measure_step_price(counted, network).steps(plan) == float("inf")


def test_steps_have_no_price_if_two_crops_do_not_fit_into_memory(train_reader, monkeypatch):
    plan = tiny_plan()
    errors = iter([RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("another one")])

    def fail(*_):
        raise next(errors)

    monkeypatch.setattr(resolution_budget, "_step_ms", fail)
    draft, network = draft_of(train_reader, plan=plan, budget="60s"), torch.nn.Identity()
    assert measure_step_price(draft, network).steps(plan) == float("inf")
    with pytest.raises(RuntimeError, match="another one"):
        measure_step_price(draft, network)


def test_the_documentation_names_the_number_of_steps(repo_root):
    assert f"fewer than {MIN_STEPS} steps" in (repo_root / "docs" / "learning.md").read_text()


def test_with_enough_steps_nothing_is_changed(plan):
    result = plan(FAST)
    assert (result.shrink, result.recipe.patch, result.recipe.batch) == (1, 192, 8)
    assert "resolution" not in result.reasons and result.options["shrink"] == 1


def test_with_too_few_steps_the_resolution_is_halved(plan):
    result = plan(SLOW)
    assert (result.shrink, result.stride, result.recipe.patch, result.recipe.batch) == (2, 64, 256, 8)
    assert result.reasons["resolution"].startswith(
        "half of the images': at full resolution, the budget would buy only 64 steps of 8 crops"
    )
    assert segmenter_spec(result, CLASSES).stride == 64 and segmenter_spec(result, CLASSES).options["shrink"] == 2


def test_half_the_resolution_has_to_buy_more_steps(plan):
    result = plan(SLOW, half=dataclasses.replace(SLOW, ms_per_pixel=SLOW.ms_per_pixel * 2))
    assert (result.shrink, result.recipe.patch, result.recipe.batch) == (1, 192, 4)
    assert result.reasons["patch"].startswith("192") and "resolution" not in result.reasons


def test_if_steps_are_still_too_few_batches_are_smaller(plan):
    result = plan(dataclasses.replace(SLOW, budget_ms=SLOW.budget_ms / 4))
    assert (result.shrink, result.recipe.batch) == (2, 4)
    assert result.reasons["batch"] == "4: the budget would buy only 16 steps of 8 crops at full resolution"


def test_what_is_set_by_hand_stays(plan):
    result = plan(dataclasses.replace(SLOW, budget_ms=1.0), train={"batch": 6}, shrink=1)
    assert (result.shrink, result.recipe.patch, result.recipe.batch) == (1, 192, 6)
    assert plan(FAST, shrink=4).reasons["resolution"] == "1/4 of the images', as set"
    with pytest.raises(
        ConfigError,
        match=r"train\.patch: the crop does not fit unet with `shrink: 4` \(found 192, expected a multiple of 128",
    ):
        plan(FAST, shrink=4, train={"patch": 192})


def test_small_images_are_not_made_smaller(plan, train_reader):
    result = plan(SLOW, reader=train_reader)
    assert (result.shrink, result.recipe.batch) == (1, 8), "64 pixels are cheap"


def test_a_batch_that_processes_share_is_not_made_smaller(plan):
    assert plan(dataclasses.replace(SLOW, budget_ms=1.0), train={"devices": 2}).recipe.batch == 8


def test_a_model_of_half_the_resolution_predicts_at_full_resolution(tmp_path):
    plan = make_plan(steps=2, val_every=1, patch=64)
    plan = plan.model_copy(update={"options": plan.options | {"shrink": 2}})
    train_on(plan, CLASSES, LARGE, LARGE, tmp_path / "model", tmp_path / "live", tmp_path / "checkpoints")
    assert read_json(tmp_path / "model" / "segmenter.json")["stride"] == 64
    assert load_trained(tmp_path / "model").predict(LARGE[0].image).class_ids.shape == (288, 320)
