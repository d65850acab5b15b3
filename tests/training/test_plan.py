"""The two types of plans: what their files hold, and their identity."""

import json

import pytest

from segpipe.errors import ConfigError, MissingError
from segpipe.training.plan import ClassicalPlan, FirstCrops, Folds, NetworkPlan, Plan, RecipePlan, StepSetting, explain
from tests.worlds.tiny_training import make_classical_plan, make_plan

KEYS = [
    "format",
    "candidate",
    "family",
    "options",
    "seed",
    "classes",
    "dtype",
    "normalisation",
    "volume",
    "postprocess",
    "encoder_sha256",
    "recipe",
    "execution",
    "reasons",
    "data_hash",
]
RECIPE_KEYS = [
    "steps",
    "patch",
    "batch",
    "accumulate",
    "learning_rate",
    "optimizer",
    "momentum",
    "nesterov",
    "weight_decay",
    "schedule",
    "warmup_steps",
    "freeze_steps",
    "clip_norm",
    "loss",
    "class_weights",
    "rare_crops",
    "ema",
    "augment",
    "free_orientation",
    "cleaning",
    "tta",
    "patience",
    "val_every",
    "checkpoint_every",
]
ALL_OPTIONS = {
    "freeze_steps": 2,
    "first": FirstCrops(steps=2, edges=(32, 32), shrink=2),
    "tta": "flips",
    "patience": 3,
    "elastic": True,
    "encoder_rate": 0.5,
    "distance": True,
    "overlapping": True,
}


@pytest.mark.parametrize("plan", [make_plan(), make_classical_plan()], ids=["network", "classical"])
def test_the_keys_of_a_plan_keep_their_order(plan):
    """The identity of trainings is a hash of this JSON."""
    content = json.loads(plan.model_dump_json())
    assert list(content) == KEYS
    if content["recipe"]:
        assert list(content["recipe"]) == RECIPE_KEYS


def test_the_identity_of_plans_never_changes():
    """Hashes by the first version of plans: checkpoints and searches are found by them."""
    folds = {"folds": Folds(count=3, dealt="blocks", gap=1)}
    assert make_plan().sha256 == "73fa6bd6bf6fc8c7c171c249b46b32658cca6d428f55801ec45c59a3b0248170"
    assert make_classical_plan().sha256 == "0bf51c4c5e266821edbbcd4c50cdac48e8bce0bf52a1278e375a0148a95650ce"
    assert (
        make_plan(**ALL_OPTIONS).model_copy(update=folds).sha256
        == "de69434ca7a6e0570c1ce301f11242af0729743634444d406d1ddada0ca45c98"
    )


@pytest.mark.parametrize(
    ("plan", "kind"), [(make_plan(**ALL_OPTIONS), NetworkPlan), (make_classical_plan(), ClassicalPlan)]
)
def test_a_plan_is_read_as_its_own_type(tmp_path, plan, kind):
    plan.write(tmp_path / "tiny.json")
    read = Plan.read(tmp_path / "tiny.json")
    assert type(read) is kind and read == plan and read.sha256 == plan.sha256
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tiny.json").read_bytes()


def test_older_plans_leave_out_keys_that_are_not_used(tmp_path):
    """The keys were added later; a plan without them is read, and keeps its identity."""
    content = json.loads(make_plan().model_dump_json())
    for key in ("recipe", "execution"):
        content[key] = {k: v for k, v in content[key].items() if k not in ("accumulate", "nodes", "step_ms")}
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    assert Plan.read(tmp_path / "tiny.json").sha256 == make_plan().sha256


def test_a_network_needs_recipe_and_execution(tmp_path):
    content = json.loads(make_plan().model_dump_json()) | {"execution": None}
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"`execution` is wrong \(found None"):
        Plan.read(tmp_path / "tiny.json")
    content["recipe"] = None
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    assert type(Plan.read(tmp_path / "tiny.json")) is ClassicalPlan
    (tmp_path / "tiny.json").write_text("[]")
    with pytest.raises(ConfigError, match="wrong"):
        Plan.read(tmp_path / "tiny.json")


def test_a_classical_plan_is_explained_without_a_table_of_timings():
    reasons = {"training": "it is fitted"}
    assert explain(make_classical_plan().model_copy(update={"reasons": reasons})) == "training  it is fitted"
    assert "ms per step" in explain(make_plan().model_copy(update={"reasons": reasons}))


def test_a_crop_is_as_large_as_the_recipe_says():
    plan = make_plan(patch=96)
    assert isinstance(plan, RecipePlan) and plan.crop_edges == (96, 96)


def test_a_plan_with_unknown_keys_is_refused(tmp_path):
    content = json.loads(make_plan().model_dump_json())
    content["recipe"]["stepz"] = 4
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"unknown key `recipe\.stepz`.*did you mean `steps`"):
        Plan.read(tmp_path / "tiny.json")
    with pytest.raises(MissingError, match="segpipe plan other"):
        Plan.read(tmp_path / "other.json")


def test_identity_is_that_of_what_is_computed_not_of_measurements():
    plan = make_plan()
    slower = plan.model_copy(
        update={"execution": plan.execution.model_copy(update={"ms_per_step": 9.0}), "reasons": {"a": "b"}}
    )
    other = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"steps": 7})})
    bf16 = make_plan(StepSetting(precision="bf16", channels_last=False))
    assert slower.sha256 == plan.sha256 and len({plan.sha256, other.sha256, bf16.sha256}) == 3


def test_the_base_of_both_types_is_not_a_plan():
    content = json.loads(make_plan().model_dump_json())
    with pytest.raises(TypeError, match="NetworkPlan or a ClassicalPlan"):
        Plan.model_validate(content)
