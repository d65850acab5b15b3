import pytest

from segpipe.config import TrainParams
from segpipe.errors import ConfigError
from segpipe.models.registry import family
from segpipe.training.choices import choose_recipe
from segpipe.training.loop import set_up
from segpipe.training.scoring import segmenter_spec, validator

from .conftest import CLASSES, fingerprint_of, make_plan


def test_the_finished_model_looks_often_and_validations_once():
    plan = make_plan(tta="d4")
    assert segmenter_spec(plan, CLASSES).tta == "d4" and validator(plan, set_up(plan), CLASSES).spec.tta == "none"


@pytest.mark.parametrize(("name", "tta"), [("unet3d", "d4"), ("mask_rcnn", "mirror")])
def test_what_a_family_can_not_do_is_refused(train_reader, name, tta):
    with pytest.raises(ConfigError, match=r"train\.tta"):
        choose_recipe(TrainParams(tta=tta), family(name), fingerprint_of(train_reader), train_reader, {})


def test_the_runs_are_counted_in_words(train_reader):
    reasons = {}
    recipe = choose_recipe(
        TrainParams(tta="flips"), family("unet"), fingerprint_of(train_reader), train_reader, reasons
    )
    assert recipe.tta == "flips" and "runs 4 times" in reasons["test-time augmentation"]
