import json

import numpy as np
import pytest

from segpipe.config import TrainParams
from segpipe.errors import ConfigError
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.trained import load_trained
from segpipe.models.registry import family
from segpipe.training.finishing import postprocess_search
from segpipe.training.finishing.cleaning_search import CleaningChoice
from segpipe.training.finishing.postprocess_search import finishing_validations
from segpipe.training.planning.recipe import choose_recipe
from segpipe.training.scoring import score_split, segmenter_spec, validation_segmenter
from segpipe.training.step import build_stepper
from segpipe.training.train import train_on
from tests.worlds.tiny_training import CLASSES, MemoryReader, draw, fingerprint_of, make_plan


def test_the_finished_model_looks_often_and_validations_once():
    plan = make_plan(tta="d4")
    assert (
        segmenter_spec(plan, CLASSES).tta == "d4"
        and validation_segmenter(plan, build_stepper(plan), CLASSES).spec.tta == "none"
    )


@pytest.mark.parametrize(("name", "tta"), [("unet3d", "d4"), ("unet3d", "multi_scale"), ("mask_rcnn", "mirror")])
def test_what_a_family_can_not_do_is_refused(train_reader, name, tta):
    with pytest.raises(ConfigError, match=r"train\.tta"):
        choose_recipe(TrainParams(tta=tta), family(name), fingerprint_of(train_reader), train_reader, {})


def test_a_detector_has_a_loss_of_its_own(train_reader):
    choose_recipe(TrainParams(), family("mask_rcnn"), fingerprint_of(train_reader), train_reader, reasons := {})
    assert "its own heads" in reasons["loss"] and "cleaning" not in reasons


def test_the_runs_are_counted_in_words(train_reader):
    reasons = {}
    recipe = choose_recipe(
        TrainParams(tta="flips"), family("unet"), fingerprint_of(train_reader), train_reader, reasons
    )
    assert recipe.tta == "flips" and "costs 4 times as much" in reasons["test-time augmentation"]


@pytest.mark.parametrize(("changes", "chosen"), [({"cleaning": "auto"}, True), ({"tta": "mirror"}, False)], ids=str)
def test_what_is_chosen_is_carried_and_scored(tmp_path, train_reader, val_reader, monkeypatch, changes, chosen):
    nothing = np.zeros((4, 3, 3), np.int64)
    found = CleaningChoice(Cleaning(least=(40, 40, 40)), nothing, nothing)
    monkeypatch.setattr(postprocess_search, "choose_cleaning", lambda *_: found)
    val = MemoryReader([draw(200 + i) for i in range(8)])
    plan = make_plan(steps=2, patch=32, val_every=2, **changes)
    train_on(plan, CLASSES, train_reader, val, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    segmenter = load_trained(tmp_path / "out")
    assert segmenter.spec.cleaning == (found.cleaning if chosen else None)
    assert segmenter.spec.tta == changes.get("tta", "none")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history["finished_score"] == pytest.approx(score_split(segmenter, val).iou_macro, abs=1e-6)
    assert finishing_validations(plan, val, "bf16") == (2.0 if chosen else 4.0)


def test_nothing_is_looked_for_where_nothing_could_be_shown(tmp_path, val_reader):
    plan = make_plan(cleaning="auto")
    assert finishing_validations(plan, val_reader, "bf16") == 0
    assert postprocess_search.finish_model(plan, tmp_path, val_reader) is None, "two images: no model is even loaded"


def test_what_was_looked_at_in_full_is_scored_from_that(tmp_path, train_reader):
    val = MemoryReader([draw(200 + i) for i in range(8)])
    plan = make_plan(steps=2, patch=32, val_every=2, cleaning="auto", tta="mirror")
    train_on(plan, CLASSES, train_reader, val, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    score = score_split(load_trained(tmp_path / "out"), val).iou_macro
    assert (
        history["finished_score"] == pytest.approx(score, abs=1e-6) and finishing_validations(plan, val, "bf16") == 4.0
    )
