"""The choices for the finished model use the outputs of the last validation: the runs of the network are counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_model import load_trained
from segpipe.samples import Sample
from segpipe.training.finishing.instance_search import best_instance_settings
from segpipe.training.finishing.postprocess_search import finish_model
from segpipe.training.finishing.remembered_outputs import remember_outputs
from segpipe.training.loop import TrainingLoop
from segpipe.training.scoring import score_split
from segpipe.training.train import train_on
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw
from tests.worlds.trainings import tiny_plan


def with_instances(sample):
    """The sample with each disc and each bar as an instance."""
    ids = np.where(sample.labels == 255, 0, sample.labels).astype(np.uint16)
    return Sample(sample.key, sample.image, sample.labels, ids)


VAL = MemoryReader([with_instances(draw(200 + i)) for i in range(10)])


@pytest.fixture
def runs(monkeypatch):
    """The images that networks see, by "bf16" or "fp32"."""
    runs = []
    run = TorchEngine.run

    def spied(self, batch):
        runs.append("bf16" if self.autocast else "fp32")
        return run(self, batch)

    monkeypatch.setattr(TorchEngine, "run", spied)
    return runs


def plan_of(postprocess="watershed", **recipe):
    plan = tiny_plan(**{"steps": 4, "val_every": 2, "cleaning": "auto"} | recipe)
    return plan.model_copy(update={"postprocess": postprocess})


def train(plan, train_reader, folder, val=VAL):
    train_on(plan, CLASSES, train_reader, val, folder / "out", folder / "live", folder / "checkpoints")
    return folder / "out", json.loads((folder / "out" / "history.json").read_text())


def make_best(monkeypatch, validation):
    """Make the first or the last validation the best one, whatever the scores are."""
    validate = TrainingLoop._validate

    def decided(self):
        if self.state.val:
            self.state.best_score = 2.0 if validation == "first" else None
        return validate(self)

    monkeypatch.setattr(TrainingLoop, "_validate", decided)


def test_three_searches_share_the_outputs_of_the_last_validation(runs, train_reader, tmp_path, monkeypatch):
    make_best(monkeypatch, "last")
    out, history = train(plan_of(), train_reader, tmp_path)
    assert len(runs) == 2 * len(VAL), "two validations, and nothing else"
    assert history["best_step"] == 4 and SegmenterSpec.read(out).postprocess is not None


def test_if_earlier_weights_are_better_their_outputs_are_computed_once(runs, train_reader, tmp_path, monkeypatch):
    make_best(monkeypatch, "first")
    train(plan_of(), train_reader, tmp_path)
    assert len(runs) == (2 + 1) * len(VAL)


def test_test_time_augmentation_runs_the_other_views_only(runs, train_reader, tmp_path, monkeypatch):
    make_best(monkeypatch, "last")
    train(plan_of(tta="flips"), train_reader, tmp_path)
    assert len(runs) == (2 + 3) * len(VAL), "one of four views is that of the last validation"


def test_with_nothing_to_choose_the_last_validation_is_like_the_others(train_reader, tmp_path, monkeypatch):
    monkeypatch.setattr("segpipe.training.train.finished_segmenter", None)
    _, history = train(plan_of(None, cleaning="none"), train_reader, tmp_path)
    assert len(history["val"]) == 2 and "finished_score" not in history


@pytest.mark.parametrize("best", ["last", "first"])
@pytest.mark.parametrize("changes", [{}, {"tta": "mirror"}, {"ema": 0.0}], ids=str)
def test_choices_are_those_of_running_the_network_again(train_reader, tmp_path, monkeypatch, best, changes):
    """Compared with the model loaded from its folder, which remembers nothing."""
    make_best(monkeypatch, best)
    plan = plan_of(steps=30, val_every=15, learning_rate=2e-2, warmup_steps=0, **changes)
    out, history = train(plan, train_reader, tmp_path)
    chosen = SegmenterSpec.read(out)
    plain = load_trained(out).with_changes(cleaning=None, postprocess=None)
    score = finish_model(plan, out, VAL, plain)
    assert SegmenterSpec.read(out) == chosen
    assert score == history.get("finished_score")
    assert history["best_step"] == (30 if best == "last" else 15)
    if best == "last":
        single = plain.with_changes(tta="none")
        assert history["best_score"] == round(score_split(single, VAL).iou_macro, 6), "of the model as it is loaded"


def test_outputs_are_identical_whatever_the_spec(train_reader, tmp_path, runs):
    out, _ = train(plan_of(steps=1, val_every=1), train_reader, tmp_path)
    plain = load_trained(out)
    remembered = remember_outputs(plain)
    runs.clear()
    for changes in ({}, {"temperature": 1.7}, {"cleaning": None}, {"tile": 64, "overlap": 32}):
        expected = plain.with_changes(**changes).segment(VAL[0], probabilities=True, instances=True)
        for _ in range(2):
            prediction = remembered.with_changes(**changes).segment(VAL[0], probabilities=True, instances=True)
            np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)
            np.testing.assert_array_equal(prediction.class_ids, expected.class_ids)
            np.testing.assert_array_equal(prediction.instances.ids, expected.instances.ids)
    tiles = 4  # of 72 x 88 pixels
    assert len(runs) == (3 + tiles) + (1 + tiles), "the last change has other inputs"


class CountingEngine:
    name = "counting"

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return np.concatenate([batch, batch[:, :1] * self.calls], 1)


def test_outputs_that_do_not_fit_are_computed_again():
    plan = tiny_plan()
    spec = SegmenterSpec(candidate="t", family="tiny", classes=CLASSES, normalisation=plan.normalisation, stride=1)
    engine = CountingEngine()
    segmenter = remember_outputs(
        Segmenter(spec.model_copy(update={"distance": True}), engine), max_bytes=3 * 72 * 88 * 16
    )
    for _ in range(2):
        for index in range(5):
            segmenter.segment(VAL[index])
    assert engine.calls == 5 + 2, "three fit"


def test_remembered_outputs_cannot_be_changed_by_accident():
    segmenter = remember_outputs(Segmenter(SegmenterSpec.model_construct(), CountingEngine()))
    logits = segmenter.engine(np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        logits += 1
    other_shape = segmenter.engine(np.zeros((1, 3, 2, 8), np.float32))
    assert other_shape.shape == (1, 4, 2, 8), "the same bytes in another shape are another input"


def test_a_part_of_the_validation_images_serves_everything(runs, train_reader, tmp_path, monkeypatch):
    make_best(monkeypatch, "last")
    plan = plan_of(val_images=8)
    out, history = train(plan, train_reader, tmp_path)
    assert len(runs) == 2 * 8 and history["val_images"] == 8
    used = MemoryReader([VAL[i] for i in (0, 1, 2, 3, 5, 6, 7, 9)])
    settings, _ = best_instance_settings(load_trained(out), used, "watershed")
    assert SegmenterSpec.read(out).postprocess == settings
    whole = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"val_images": None})})
    assert "val_images" not in train(whole, train_reader, tmp_path / "whole")[1]
    assert "val_images" not in whole.model_dump_json() and whole.sha256 != plan.sha256


def test_the_last_validation_of_a_shared_training_is_shared(runs, train_reader, tmp_path, monkeypatch):
    """Then the first process computes the outputs once more, for all searches."""
    monkeypatch.setattr("segpipe.training.train.world_size", lambda: 2)
    monkeypatch.setattr("segpipe.training.train.check_parts", lambda *_: None)
    train(plan_of(batch=4), train_reader, tmp_path)
    assert len(runs) == (2 + 1) * len(VAL)
