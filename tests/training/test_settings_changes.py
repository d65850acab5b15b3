"""Settings of params.yaml that changed since a candidate was planned."""

import json

import pytest

from segpipe import stages
from segpipe.config import Params
from segpipe.errors import ConfigError
from segpipe.training.settings_changes import changed_since, check_settings
from tests.worlds.tiny_training import SMALL, candidate_params, make_plan


@pytest.fixture
def planned():
    settings = candidate_params(
        {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4}
    ).explicit_settings("net")
    return make_plan().model_copy(update={"candidate": "net", "settings": settings})


def test_settings_that_changed_since_planning_are_listed_and_refused(planned):
    settings = {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4}
    elsewhere = {"family": "unet", **SMALL, "train": {"patch": 64, "freeze_encoder": 0.4}}
    same = Params.model_validate({"train": {"budget": "3 steps", "batch": 2}, "candidates": {"net": elsewhere}})
    assert planned.settings == same.explicit_settings("net"), "in whichever section they are set"
    check_settings(planned, same.explicit_settings("net"))
    other = candidate_params({**settings, "batch": 4, "optimizer": "sgd"}, encoder="resnet18").explicit_settings("net")
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


def test_a_training_by_hand_does_not_ignore_changed_settings(planned, tmp_path):
    """`segpipe run` plans first; `segpipe train` would follow the old plan."""
    content = {"train": {"budget": "3 steps", "patch": 64, "batch": 2, "freeze_encoder": 0.4, "ema": 0.5}}
    (tmp_path / "params.yaml").write_text(json.dumps(content | {"candidates": {"net": {"family": "unet", **SMALL}}}))
    planned.write(tmp_path / "plans" / "net.json")
    with pytest.raises(
        ConfigError, match=r"plans/net\.json: train\.ema was not set .* is 0\.5 now\. Fix: run `segpipe plan net`"
    ):
        stages.train(tmp_path, "net")
