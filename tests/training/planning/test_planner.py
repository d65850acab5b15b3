import pytest

from segpipe.config import Params
from segpipe.errors import ConfigError
from segpipe.training.machine import check_plan
from segpipe.training.plan import ClassicalPlan, NetworkPlan, Plan, explain
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.recipe import choose_patch
from segpipe.training.speed.precision_benchmark import (
    CHOSEN,
    LOSS_TOLERANCE,
)
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import candidate_params, draw, fingerprint_of
from tests.worlds.trainings import register


@pytest.fixture(scope="module")
def planned():
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4}
    return plan_on("net", candidate_params(settings), fingerprint_of(train), train, val)


def test_a_plan_has_recipe_execution_and_reasons(planned, tmp_path):
    assert planned.recipe.steps == 3 and planned.recipe.val_every == 1
    assert planned.recipe.freeze_steps == 1 and planned.reasons["frozen encoder"] == "40% of the steps: as set"
    chosen = [t for t in planned.execution.timings if t.verdict == CHOSEN]
    assert [t.setting for t in chosen] == [planned.execution.setting]
    assert abs(chosen[0].loss_difference) <= LOSS_TOLERANCE
    text = explain(planned)
    assert all(name in text for name in planned.reasons) and CHOSEN in text
    planned.write(tmp_path / "net.json")
    assert Plan.read(tmp_path / "net.json") == planned and type(planned) is NetworkPlan
    assert planned.encoder_sha256 is None, "random weights follow from the seed"


def test_reasons_describe_loss_optimiser_and_finished_model():
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = candidate_params(
        {
            "budget": "3 steps",
            "patch": 32,
            "batch": 2,
            "loss": {"focal": {"gamma": 3}, "lovasz": 0.5},
            "optimizer": "sgd",
            "schedule": "one_cycle",
            "learning_rate": "auto",
            "freeze_encoder": 0.4,
            "patience": 2,
            "tta": "flips",
        }
    )
    text = explain(plan_on("net", settings, fingerprint_of(train), train, val))
    for phrase in (
        "focal (gamma 3) + 0.5 lovasz",
        "sgd with Nesterov momentum 0.9",
        "follows one_cycle",
        "range test",
        "40% of the steps",
        "after 2 validations",
        "costs 4 times",
        "specks and holes",
    ):
        assert phrase in text, phrase


def test_settings_are_followed_and_reported():
    register()
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    settings = {
        "candidates": {"net": {"family": "tiny"}},
        "train": {
            "budget": "20 steps",
            "patch": 32,
            "batch": 2,
            "validations": 4,
            "warmup": 0.25,
            "workers": 0,
            "orientation": "upright",
            "class_weights": {"ground": 1, "bar": 4, "disc": 2},
            "normalisation": [20, 220],
        },
    }
    plan = plan_on("net", Params.model_validate(settings), fingerprint_of(train), train, val)
    recipe, pixels = plan.recipe, train.class_pixels.sum(0)
    assert (recipe.val_every, recipe.warmup_steps, plan.execution.workers) == (5, 5, 0)
    ground, disc, bar = recipe.class_weights
    assert (disc / ground, bar / ground) == pytest.approx((2, 4), rel=1e-5), "by name"
    assert (pixels * recipe.class_weights).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
    assert not recipe.free_orientation and plan.normalisation.low == (20,) * 3 and plan.normalisation.high == (220,) * 3
    text = explain(plan)
    for phrase in (
        "as set: the images have an up and a down",
        "as set, scaled to 1 per pixel on average: ground",
        "as set: the window 20",
    ):
        assert phrase in text, phrase


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ground": 1, "disc": 2}, "found nothing for bar.*ground, disc, bar"),
        ({"ground": 1, "disk": 2}, "found disk, which is not a class"),
    ],
)
def test_weights_are_given_for_all_classes_and_no_others(train_reader, weights, message):
    with pytest.raises(ConfigError, match=rf"train\.class_weights: .*{message}"):
        plan_on(
            "net",
            candidate_params({"class_weights": weights}),
            fingerprint_of(train_reader),
            train_reader,
            train_reader,
        )


def test_a_classical_family_has_neither_recipe_nor_execution(train_reader):
    candidates = Params.model_validate({"candidates": {"base": {"family": "kmeans"}}})
    plan = plan_on("base", candidates, fingerprint_of(train_reader), train_reader, train_reader)
    assert type(plan) is ClassicalPlan and plan.recipe is None and plan.execution is None and plan.options["clusters"]
    assert "fitted" in explain(plan)
    check_plan(plan)


def test_a_network_that_needs_two_images_per_batch_is_refused_one(train_reader):
    settings = candidate_params({"batch": 1}, family="deeplabv3plus")
    with pytest.raises(ConfigError, match=r"train\.batch.*fewer than 2"):
        plan_on("net", settings, fingerprint_of(train_reader), train_reader, train_reader)


def test_elastic_deformation_needs_medium_augmentation(train_reader):
    settings = candidate_params({"elastic": True, "augment": "light"})
    with pytest.raises(ConfigError, match=r"train\.augment: .*found light.*medium or strong"):
        plan_on("net", settings, fingerprint_of(train_reader), train_reader, train_reader)


@pytest.mark.parametrize(("size", "patch"), [(30, 64), (72, 64), (160, 160), (209, 192), (4000, 192)])
def test_patch_follows_the_images(train_reader, size, patch):
    sizes = {"min": size, "median": size, "max": size}
    assert (
        choose_patch(fingerprint_of(train_reader, height=sizes, width={"min": 1, "median": size + 9, "max": 9999}))
        == patch
    )
