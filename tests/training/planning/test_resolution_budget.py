"""Plans of networks that are too slow for their budget."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from segpipe.config import Params
from segpipe.errors import ConfigError
from segpipe.files import read_json
from segpipe.inference.trained import load_trained
from segpipe.models.registry import build_network
from segpipe.training.loop import train_on
from segpipe.training.planning import planner, resolution_budget
from segpipe.training.planning.resolution_budget import MIN_STEPS, StepPrice, measure_step_price
from segpipe.training.scoring import segmenter_spec
from tests.worlds.tiny_training import CLASSES, MemoryReader, draw, fingerprint_of, make_plan
from tests.worlds.trainings import tiny_plan

LARGE = MemoryReader([draw(i, height=288, width=320) for i in range(4)])
SLOW, QUICK = StepPrice(1.0, 64 * 192**2 * 8), StepPrice(1.0, 120 * 192**2 * 8)
"""64 steps of 8 crops of 192 pixels, and 120 of them."""


@pytest.fixture
def plan(monkeypatch):
    """A plan at a price, as far as it is chosen without measuring."""
    monkeypatch.setattr(
        planner, "_measured", lambda draft, *_: SimpleNamespace(recipe=draft.recipe, execution=None, reasons={})
    )

    def make(price: StepPrice, reader=LARGE, train=None, half: StepPrice | None = None, **options):
        monkeypatch.setattr(
            resolution_budget, "measure_step_price", lambda draft, *_: half if half and draft.shrink == 2 else price
        )
        own = {"family": "unet", "encoder": "mobilenetv3_small_050", "encoder_weights": "none"} | options
        wanted = Params(candidates={"net": own}, train=train or {})
        return planner.plan_on("net", wanted, fingerprint_of(reader), reader, reader)

    return make


def test_the_steps_that_a_budget_buys():
    assert StepPrice(0.5, 1000.0).steps(make_plan(batch=2, patch=64)) == pytest.approx(1000 / (0.5 * 2 * 64**2))


def test_what_a_step_costs_is_measured_in_seconds_and_free_where_steps_are_counted(train_reader):
    draft, params = tiny_plan(), Params(candidates={"net": {"family": "tiny"}}, train={"budget": "60s"})
    network = build_network("tiny", draft.model_family.config(), 3, 3, 0)
    before = [value.clone() for value in network.state_dict().values()]
    found = measure_step_price(draft, network, params.train_for("net"), train_reader)
    assert found.budget_ms == 45_000 and 0 < found.ms < 1
    assert all((a == b).all() for a, b in zip(before, network.state_dict().values(), strict=True))
    counted = Params(candidates={"net": {"family": "tiny"}}, train={"budget": "60 steps"}).train_for("net")
    assert measure_step_price(draft, network, counted, train_reader).steps(draft) == float("inf")


def test_where_two_crops_do_not_fit_nothing_is_said_of_a_price(train_reader, monkeypatch):
    draft, params = tiny_plan(), Params(candidates={"net": {"family": "tiny"}}, train={"budget": "60s"})
    errors = iter([RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("another one")])

    def fail(*_):
        raise next(errors)

    monkeypatch.setattr(resolution_budget, "_step_ms", fail)
    network, wanted = torch.nn.Identity(), params.train_for("net")
    assert measure_step_price(draft, network, wanted, train_reader).steps(draft) == float("inf")
    with pytest.raises(RuntimeError, match="another one"):
        measure_step_price(draft, network, wanted, train_reader)


def test_the_page_names_how_many_are_enough(repo_root):
    assert f"fewer than {MIN_STEPS} steps" in (repo_root / "docs" / "learning.md").read_text()


def test_enough_steps_leave_everything_as_it_is(plan):
    made = plan(QUICK)
    assert (made.shrink, made.recipe.patch, made.recipe.batch) == (1, 192, 8)
    assert "resolution" not in made.reasons and made.options["shrink"] == 1


def test_too_few_are_taken_at_half_the_resolution(plan):
    made = plan(SLOW)
    assert (made.shrink, made.stride, made.recipe.patch, made.recipe.batch) == (2, 64, 256, 8)
    assert made.reasons["resolution"].startswith("half of the images': at full resolution, 64 steps of 8 crops")
    assert segmenter_spec(made, CLASSES).stride == 64 and segmenter_spec(made, CLASSES).options["shrink"] == 2


def test_half_the_resolution_has_to_buy_more_steps(plan):
    made = plan(SLOW, half=dataclasses.replace(SLOW, ms=SLOW.ms * 2))
    assert (made.shrink, made.recipe.patch, made.recipe.batch) == (1, 192, 4)
    assert made.reasons["patch"].startswith("192") and "resolution" not in made.reasons


def test_still_too_few_are_of_fewer_crops(plan):
    made = plan(dataclasses.replace(SLOW, budget_ms=SLOW.budget_ms / 4))
    assert (made.shrink, made.recipe.batch) == (2, 4)
    assert made.reasons["batch"] == "4: 16 steps of 8 crops are all that the budget would buy at full resolution"


def test_what_is_set_by_hand_stays(plan):
    made = plan(dataclasses.replace(SLOW, budget_ms=1.0), train={"batch": 6}, shrink=1)
    assert (made.shrink, made.recipe.patch, made.recipe.batch) == (1, 192, 6)
    assert plan(QUICK, shrink=4).reasons["resolution"] == "1/4 of the images', as set"
    with pytest.raises(
        ConfigError,
        match=r"train\.patch: crops don't fit unet with `shrink: 4` \(found 192, expected a multiple of 128",
    ):
        plan(QUICK, shrink=4, train={"patch": 192})


def test_small_images_are_not_made_smaller(plan, train_reader):
    made = plan(SLOW, reader=train_reader)
    assert (made.shrink, made.recipe.batch) == (1, 8), "64 pixels are cheap"


def test_processes_that_share_a_batch_each_keep_their_part(plan):
    assert plan(dataclasses.replace(SLOW, budget_ms=1.0), train={"devices": 2}).recipe.batch == 8


def test_a_training_at_half_the_resolution_serves_at_the_images(tmp_path):
    made = make_plan(steps=2, val_every=1, patch=64)
    made = made.model_copy(update={"options": made.options | {"shrink": 2}})
    train_on(made, CLASSES, LARGE, LARGE, tmp_path / "model", tmp_path / "live", tmp_path / "checkpoints")
    assert read_json(tmp_path / "model" / "segmenter.json")["stride"] == 64
    assert load_trained(tmp_path / "model").predict(LARGE[0].image).class_ids.shape == (288, 320)
