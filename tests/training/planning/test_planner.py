import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe import stages
from segpipe.config import Params
from segpipe.errors import ConfigError, MissingError
from segpipe.training import machine
from segpipe.training.machine import check_plan, choose_device, this_machine
from segpipe.training.plan import Plan, StepSetting, Timing, changed_since, check_settings, explain
from segpipe.training.planning import precision_benchmark as racing
from segpipe.training.planning.planner import plan_on
from segpipe.training.planning.precision_benchmark import (
    CHOSEN,
    LOSS_TOLERANCE,
    PrecisionBenchmark,
    candidate_settings,
    fastest,
)
from segpipe.training.planning.recipe import choose_class_weights, choose_patch, top_bottom_difference
from segpipe.training.tasks import samples_of
from tests.worlds.detectors import detector_plan, discs
from tests.worlds.tiny_training import MemoryReader, draw, fingerprint_of, make_plan

SMALL = {"encoder": "mobilenetv3_small_050", "encoder_weights": "none"}


def params(train=None, **candidate):
    return Params.model_validate(
        {"train": train or {}, "candidates": {"net": {"family": "unet", **SMALL, **candidate}}}
    )


@pytest.fixture(scope="module")
def planned():
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    wanted = params({"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4})
    return plan_on("net", wanted, fingerprint_of(train), train, val)


def test_a_plan_says_what_when_and_why(planned, tmp_path):
    assert planned.recipe.steps == 3 and planned.recipe.val_every == 1
    assert planned.recipe.freeze_steps == 1 and planned.reasons["frozen encoder"] == "40% of the steps: as set"
    chosen = [t for t in planned.execution.timings if t.verdict == CHOSEN]
    assert [t.setting for t in chosen] == [planned.execution.setting]
    assert abs(chosen[0].loss_difference) <= LOSS_TOLERANCE
    text = explain(planned)
    assert all(name in text for name in planned.reasons) and CHOSEN in text
    planned.write(tmp_path / "net.json")
    assert Plan.read(tmp_path / "net.json") == planned
    assert planned.encoder_sha256 is None, "random weights follow from the seed"


def test_what_is_learned_and_how_stands_in_words():
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    wanted = params(
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
    text = explain(plan_on("net", wanted, fingerprint_of(train), train, val))
    for words in (
        "focal (gamma 3) + 0.5 lovasz",
        "sgd with Nesterov momentum 0.9",
        "goes by one_cycle",
        "range test",
        "40% of the steps",
        "after 2 validations",
        "costs 4 times",
        "specks and holes",
    ):
        assert words in text, words


def test_what_is_set_is_followed_and_said_so():
    train, val = MemoryReader([draw(i) for i in range(8)]), MemoryReader([draw(9)])
    wanted = params(
        {
            "budget": "20 steps",
            "patch": 32,
            "batch": 2,
            "validations": 4,
            "warmup": 0.25,
            "workers": 0,
            "orientation": "upright",
            "class_weights": {"ground": 1, "bar": 4, "disc": 2},
            "normalisation": [20, 220],
        }
    )
    plan = plan_on("net", wanted, fingerprint_of(train), train, val)
    recipe, pixels = plan.recipe, train.class_pixels.sum(0)
    assert (recipe.val_every, recipe.warmup_steps, plan.execution.workers) == (5, 5, 0)
    ground, disc, bar = recipe.class_weights
    assert (disc / ground, bar / ground) == pytest.approx((2, 4), rel=1e-5), "by name"
    assert (pixels * recipe.class_weights).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
    assert not recipe.free_orientation and plan.normalisation.low == (20,) * 3 and plan.normalisation.high == (220,) * 3
    text = explain(plan)
    for words in (
        "as set: the images have an up and a down",
        "as set, a pixel weighs 1 on average: ground",
        "as set: the window 20",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"ground": 1, "disc": 2}, "found nothing for bar.*ground, disc, bar"),
        ({"ground": 1, "disk": 2}, "found disk, which is no class"),
    ],
)
def test_weights_are_of_all_classes_and_of_no_others(train_reader, weights, said):
    with pytest.raises(ConfigError, match=rf"train\.class_weights: .*{said}"):
        plan_on("net", params({"class_weights": weights}), fingerprint_of(train_reader), train_reader, train_reader)


def test_a_plan_is_strict(tmp_path):
    content = json.loads(make_plan().model_dump_json())
    content["recipe"]["stepz"] = 4
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"unknown key `recipe\.stepz`.*did you mean `steps`"):
        Plan.read(tmp_path / "tiny.json")
    with pytest.raises(MissingError, match="segpipe plan other"):
        Plan.read(tmp_path / "other.json")


def test_a_setting_that_changed_since_is_told_and_refused(planned):
    wanted = {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4}
    elsewhere = {"family": "unet", **SMALL, "train": {"patch": 64, "freeze_encoder": 0.4}}
    same = Params.model_validate({"train": {"budget": "3 steps", "batch": 2}, "candidates": {"net": elsewhere}})
    assert planned.settings == same.set_for("net"), "wherever it is set"
    check_settings(planned, same.set_for("net"))
    other = params({**wanted, "batch": 4, "optimizer": "sgd"}, encoder="resnet18").set_for("net")
    assert sorted(changed_since(planned, other)) == [
        "encoder was mobilenetv3_small_050 when it was planned and is resnet18 now",
        "train.batch was 2 when it was planned and is 4 now",
        "train.optimizer was not set when it was planned and is sgd now",
    ]
    assert changed_since(planned, {k: v for k, v in planned.settings.items() if k != "train.batch"}) == [
        "train.batch was 2 when it was planned and is not set now"
    ]
    older = planned.model_copy(update={"settings": None})
    check_settings(older, other)
    assert older.sha256 == planned.sha256


def test_a_training_by_hand_does_not_pass_over_what_params_say_now(planned, tmp_path):
    """`segpipe run` plans first; `segpipe train` would follow a plan of before."""
    wanted = {"train": {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4, "ema": 0.5}}
    (tmp_path / "params.yaml").write_text(json.dumps(wanted | {"candidates": {"net": {"family": "unet", **SMALL}}}))
    planned.write(tmp_path / "plans" / "net.json")
    with pytest.raises(
        ConfigError, match=r"plans/net\.json: train\.ema was not set .* is 0\.5 now\. Fix: segpipe plan net"
    ):
        stages.train(tmp_path, "net")


def test_identity_is_of_what_is_computed_not_of_what_was_measured():
    plan = make_plan()
    slower = plan.model_copy(
        update={"execution": plan.execution.model_copy(update={"ms_per_step": 9.0}), "reasons": {"a": "b"}}
    )
    other = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"steps": 7})})
    bf16 = make_plan(StepSetting(precision="bf16", channels_last=False))
    assert slower.sha256 == plan.sha256 and len({plan.sha256, other.sha256, bf16.sha256}) == 3


def test_a_classical_family_has_no_steps(train_reader):
    wanted = Params.model_validate({"candidates": {"base": {"family": "kmeans"}}})
    plan = plan_on("base", wanted, fingerprint_of(train_reader), train_reader, train_reader)
    assert plan.recipe is None and plan.execution is None and plan.options["clusters"]
    assert "fitted" in explain(plan)
    check_plan(plan)


def test_settings_that_are_set_are_not_raced():
    assert candidate_settings(params({"precision": "bf16", "channels_last": True}).train, "cpu") == [
        StepSetting(precision="bf16", channels_last=True)
    ]
    assert len(candidate_settings(params({"precision": "fp32"}).train, "cpu")) == 2


def test_a_network_that_needs_two_images_says_so(train_reader):
    wanted = params({"batch": 1}, family="deeplabv3plus")
    with pytest.raises(ConfigError, match=r"train\.batch.*fewer than 2"):
        plan_on("net", wanted, fingerprint_of(train_reader), train_reader, train_reader)


def test_what_is_hardly_varied_is_not_bent(train_reader):
    wanted = params({"elastic": True, "augment": "light"})
    with pytest.raises(ConfigError, match=r"train\.augment: .*found light.*medium or strong"):
        plan_on("net", wanted, fingerprint_of(train_reader), train_reader, train_reader)


def timing(verdict, ms):
    return Timing(
        setting=StepSetting(precision="fp32", channels_last=False), ms_per_step=ms, loss_difference=0.0, verdict=verdict
    )


def test_the_fastest_that_agrees_wins():
    assert (
        fastest(
            [timing("agrees", 5.0), timing("agrees", 3.0), timing("refused: its loss is not that of fp32", 1.0)]
        ).ms_per_step
        == 3.0
    )
    assert fastest([timing("refused", 1.0)]) is None


def test_a_setting_whose_loss_is_off_is_refused(train_reader, monkeypatch):
    """The race must notice a fast setting that computes something else."""
    plan = make_plan()
    network = torch.nn.Conv2d(3, 3, 1)
    from segpipe.training.sampling.crops import Crops
    from segpipe.training.step import Stepper

    step = Stepper.step

    def wrong_in_bf16(self, number, images, labels, seed):
        return step(self, number, images * (3 if self.setting.precision == "bf16" else 1), labels, seed)

    monkeypatch.setattr(Stepper, "step", wrong_in_bf16)
    monkeypatch.setattr(racing, "has_bf16", lambda _: True)
    timings = PrecisionBenchmark(
        plan, network, Crops(train_reader, plan), "cpu", params({"budget": "1h", "compile": False}).train
    ).run()
    assert {t.setting.precision: t.verdict.split(":")[0] for t in timings if t.setting.channels_last}[
        "bf16"
    ] == "refused"
    assert next(t for t in timings if t.verdict == CHOSEN).setting.precision == "fp32"


def test_losses_of_a_detector_agree_within_what_the_draw_of_proposals_makes_of_them(train_reader, monkeypatch):
    """They vary by chance, by more than the bound on what a setting may change."""
    drawn = itertools.cycle([1.0, 1.1, 0.9, 1.05, 0.95])
    monkeypatch.setattr(racing, "objective_of", lambda *_: lambda *_: next(drawn))
    wanted = params({"budget": "1h", "compile": False}).train
    plan = detector_plan(batch=2)
    race = PrecisionBenchmark(plan, torch.nn.Conv2d(3, 3, 1), samples_of(MemoryReader([discs(0)]), plan), "cpu", wanted)
    assert (race.reference, race.tolerance) == (pytest.approx(1.0), pytest.approx(3 * 0.005**0.5))
    plan = make_plan(batch=2)
    race = PrecisionBenchmark(plan, torch.nn.Conv2d(3, 3, 1), samples_of(train_reader, plan), "cpu", wanted)
    assert (race.reference, race.tolerance) == (1.0, LOSS_TOLERANCE)


@pytest.mark.parametrize(("size", "patch"), [(30, 64), (72, 64), (160, 160), (209, 192), (4000, 192)])
def test_patch_follows_the_images(train_reader, size, patch):
    sizes = {"min": size, "median": size, "max": size}
    assert (
        choose_patch(fingerprint_of(train_reader, height=sizes, width={"min": 1, "median": size + 9, "max": 9999}))
        == patch
    )


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=12), st.floats(0, 1))
def test_class_weights_average_to_one_over_pixels(pixels, balance):
    weights = choose_class_weights(pixels, balance)
    total = sum(pixels)
    if total:
        assert sum(w * p for w, p in zip(weights, pixels, strict=True)) / total == pytest.approx(1, rel=1e-3)
        assert max(weights) <= 100.1 * min(weights)
    assert all(w > 0 for w in weights)
    if balance == 0:
        assert weights == pytest.approx([1.0] * len(pixels))


def test_class_weights_follow_frequency():
    assert choose_class_weights([400, 100], 0.5)[1] == pytest.approx(
        2 * choose_class_weights([400, 100], 0.5)[0], rel=1e-4
    )


def test_streets_have_an_up_and_a_down_and_cells_have_not():
    cells = MemoryReader([draw(i) for i in range(40)])
    streets = []
    for i in range(8):
        sample = draw(i)
        labels = sample.labels.copy()
        labels[40:] = 2
        streets.append(type(sample)(sample.key, sample.image, labels))
    assert top_bottom_difference(cells) < 0.2 < 0.5 < top_bottom_difference(MemoryReader(streets))


def test_a_plan_that_this_machine_can_not_follow_stops(monkeypatch):
    plan = make_plan(StepSetting(precision="bf16", channels_last=True))
    monkeypatch.setattr(machine, "has_bf16", lambda _: False)
    with pytest.raises(ConfigError, match=r"bfloat16.*segpipe plan tiny --refresh"):
        check_plan(plan)
    hungry = make_plan().model_copy(
        update={
            "execution": plan.execution.model_copy(
                update={"peak_memory_mib": 1 << 40, "setting": StepSetting(precision="fp32", channels_last=False)}
            )
        }
    )
    with pytest.raises(ConfigError, match="more memory"):
        check_plan(hungry)
    if not torch.cuda.is_available():
        other = plan.execution.machine.model_copy(update={"device": "cuda"})
        with pytest.raises(ConfigError, match="needs a GPU"):
            check_plan(plan.model_copy(update={"execution": plan.execution.model_copy(update={"machine": other})}))
        with pytest.raises(MissingError, match="no CUDA device"):
            choose_device("gpu")


def test_a_plan_from_another_machine_goes_on_with_a_word(capfd):
    plan = make_plan()
    check_plan(plan)
    assert "planned on any" in capfd.readouterr().err
    here = this_machine("cpu")
    check_plan(plan.model_copy(update={"execution": plan.execution.model_copy(update={"machine": here})}))
    assert capfd.readouterr().err == ""
