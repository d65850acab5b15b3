import json

import numpy as np
import pytest

from segpipe.errors import ConfigError
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.trained_model import load_trained
from segpipe.training.finishing import postprocess_search
from segpipe.training.finishing.cleaning_search import CleaningChoice
from segpipe.training.finishing.postprocess_search import has_choices
from segpipe.training.planning.recipe import choose_image_recipe
from segpipe.training.scoring import score_split, segmenter_spec, validation_segmenter
from segpipe.training.step import build_stepper
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draft_of, draw, fingerprint_of, make_plan


def test_the_finished_model_augments_and_validations_do_not():
    plan = make_plan(tta="d4")
    assert (
        segmenter_spec(plan, CLASSES).tta == "d4"
        and validation_segmenter(plan, build_stepper(plan), CLASSES).spec.tta == "none"
    )


@pytest.mark.parametrize(("name", "tta"), [("unet3d", "d4"), ("unet3d", "multi_scale"), ("mask_rcnn", "mirror")])
def test_augmentation_that_a_family_does_not_support_is_refused(train_reader, name, tta):
    with pytest.raises(ConfigError, match=r"train\.tta"):
        choose_image_recipe(draft_of(train_reader, name, fingerprint=fingerprint_of(train_reader), tta=tta))


def test_a_detector_has_its_own_loss(train_reader):
    draft = draft_of(train_reader, "mask_rcnn", fingerprint=fingerprint_of(train_reader))
    choose_image_recipe(draft)
    assert "its own heads" in draft.reasons["loss"] and "cleaning" not in draft.reasons


def test_the_cost_of_augmentation_is_a_reason(train_reader):
    draft = draft_of(train_reader, fingerprint=fingerprint_of(train_reader), tta="flips")
    recipe = choose_image_recipe(draft)
    assert recipe.tta == "flips" and "costs 4 times as much" in draft.reasons["test-time augmentation"]


@pytest.mark.parametrize(("changes", "chosen"), [({"cleaning": "auto"}, True), ({"tta": "mirror"}, False)], ids=str)
def test_choices_are_part_of_the_model_and_scored(tmp_path, train_reader, val_reader, monkeypatch, changes, chosen):
    nothing = np.zeros((4, 3, 3), np.int64)
    choice = CleaningChoice(Cleaning(least=(40, 40, 40)), nothing, nothing)
    monkeypatch.setattr(postprocess_search, "choose_cleaning", lambda *_: choice)
    val = MemoryReader([draw(200 + i) for i in range(8)])
    plan = make_plan(steps=2, patch=32, val_every=2, **changes)
    train_on(plan, CLASSES, train_reader, val, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    segmenter = load_trained(tmp_path / "out")
    assert segmenter.spec.cleaning == (choice.cleaning if chosen else None)
    assert segmenter.spec.tta == changes.get("tta", "none")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history["finished_score"] == pytest.approx(score_split(segmenter, val).iou_macro, abs=1e-6)
    assert has_choices(plan, val)


def test_with_too_few_images_no_cleaning_is_searched_for(tmp_path, val_reader):
    plan = make_plan(cleaning="auto", steps=1)
    assert not has_choices(plan, val_reader), "two images"
    train_on(plan, CLASSES, val_reader, val_reader, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    assert load_trained(tmp_path / "out").spec.cleaning is None


def test_the_score_after_a_search_on_all_images_is_that_of_the_model(tmp_path, train_reader):
    val = MemoryReader([draw(200 + i) for i in range(8)])
    plan = make_plan(steps=2, patch=32, val_every=2, cleaning="auto", tta="mirror")
    train_on(plan, CLASSES, train_reader, val, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    score = score_split(load_trained(tmp_path / "out"), val).iou_macro
    assert history["finished_score"] == pytest.approx(score, abs=1e-6)
