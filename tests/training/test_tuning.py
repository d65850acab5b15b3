import math

import pytest
import yaml

from segpipe.config import TrainParams
from segpipe.errors import ConfigError, SegpipeError
from segpipe.training import tuning
from segpipe.training.planning.label_statistics import balance_class_weights
from segpipe.training.tuning import Search, check_tunable, trial_steps
from tests.worlds.tiny_training import fingerprint_of, make_classical_plan
from tests.worlds.trainings import tiny_plan


@pytest.fixture
def search(tmp_path, train_reader):
    plan = tiny_plan(steps=40, loss={"cross_entropy": {"weight": 1, "label_smoothing": 0.1}, "dice": 0.5})

    def make(folder="a", steps=10, **settings):
        return Search(plan, TrainParams(**settings), fingerprint_of(train_reader), steps, tmp_path / folder)

    return make


def score_by_rate(scores):
    """A training that takes no time: its score follows from its learning rate alone; ``scores(rate, step)``."""

    def train_on(plan, classes, train, val, out, live, checkpoints, on_validation):
        for step in (2, 4, 6, 8, 10):
            on_validation(step, scores(plan.recipe.learning_rate, step))
        out.mkdir(parents=True)
        (out / "history.json").write_text(f'{{"best_score": {scores(plan.recipe.learning_rate, 10)}}}')

    return train_on


def bump(rate, step=10):
    """Best at 1e-2, five times the current rate."""
    return max(0.0, 1 - abs(math.log10(rate / 1e-2))) * step / 10


def test_a_search_begins_with_the_current_settings_and_finds_better_ones(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    tuned = search()
    tuned.run(18, None, None)
    results = tuned.results()
    first = next(r for r in results if r.number == 0)
    assert first.settings["learning_rate"] == 2e-3 and first.settings["augment"] == "medium"
    assert len(results) == 18 and results[0].score > first.score + 0.3 and results[0].ended == "finished"
    assert any(r.ended == "fell behind" for r in results), "the pruner ends some early"


def test_a_trial_is_the_plan_with_its_settings_and_fewer_steps(search, train_reader):
    tuned = search()
    settings = {
        "learning_rate": 0.01,
        "weight_decay": 0.2,
        "rare_crops": 0.7,
        "class_balance": 1.0,
        "augment": "light",
        "loss": {"cross_entropy": {"weight": 1.0, "label_smoothing": 0.1}, "dice": 1.5},
    }
    recipe = tuned.trial_plan(settings).recipe
    assert tuned.trial_plan(settings).settings is None, "without settings, the pace monitor is off"
    weights = balance_class_weights(fingerprint_of(train_reader).class_pixels["train"], 1.0)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.rare_crops, recipe.augment) == (0.01, 0.2, 0.7, "light")
    assert recipe.class_weights == weights and recipe.loss.dice.weight == 1.5
    assert recipe.loss.cross_entropy.label_smoothing == 0.1, "options of terms are kept"
    assert (recipe.steps, recipe.val_every, recipe.tta, recipe.cleaning) == (10, 2, "none", "none")
    assert trial_steps(tuned.plan) == 40 and recipe.batch == tuned.plan.recipe.batch


def test_class_weights_that_are_set_are_not_tuned(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    tuned = search(class_weights={"ground": 1, "disc": 2, "bar": 3}, warmup=0.5)
    tuned.run(6, None, None)
    assert not any("class_balance" in result.settings for result in tuned.results())
    recipe = tuned.trial_plan(tuned.results()[0].settings).recipe
    assert recipe.class_weights == tuned.plan.recipe.class_weights and recipe.warmup_steps == 5


def test_results_are_settings_of_params_yaml(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    tuned = search()
    tuned.run(6, None, None)
    for result in tuned.results():
        settings = yaml.safe_load(yaml.safe_dump(result.settings))
        TrainParams.model_validate(settings)
        assert tuned.trial_plan(settings).recipe.learning_rate == settings["learning_rate"]


@pytest.mark.slow
def test_a_stopped_search_continues_with_its_trial(search, monkeypatch, train_reader, val_reader, capfd):
    validations, real = [], tuning.train_on

    def stopped_in_the_second(plan, *rest, on_validation):
        def stop(step, score):
            validations.append((plan.sha256, step))
            if len(validations) == 7:
                raise KeyboardInterrupt
            on_validation(step, score)

        real(
            plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"checkpoint_every": 1})}),
            *rest,
            on_validation=stop,
        )

    monkeypatch.setattr(tuning, "train_on", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        search().run(2, train_reader, val_reader)
    assert [step for _, step in validations] == [2, 4, 6, 8, 10, 2, 4]
    again = search()
    again.run(2, train_reader, val_reader)
    assert len(again.results()) == 2 and len(validations) > 7
    assert {sha for sha, _ in validations[7:]} == {validations[6][0]}, "the same settings"
    assert "continues from step 3" in capfd.readouterr().err, "from its checkpoint"
    again.run(2, train_reader, val_reader)
    assert len(again.results()) == 2, "as many as requested, including earlier ones"


def test_two_searches_share_the_trials(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    one, two = search(), search()
    one.run(3, None, None)
    two.run(5, None, None)
    assert len(one.results()) == len(two.results()) == 5
    assert sum(r.settings["learning_rate"] == 2e-3 for r in one.results()) == 1, "the current settings, once"


def test_a_trial_that_diverges_is_the_worst_and_other_errors_are_raised(search, monkeypatch):
    def diverges(*_, **__):
        raise SegpipeError("training diverged")

    monkeypatch.setattr(tuning, "train_on", diverges)
    tuned = search()
    tuned.run(2, None, None)
    assert [(r.score, r.ended) for r in tuned.results()] == [(0.0, "diverged")] * 2

    def fails(*_, **__):
        raise ConfigError("out of memory")

    monkeypatch.setattr(tuning, "train_on", fails)
    with pytest.raises(ConfigError, match="out of memory"):
        search("b").run(2, None, None)


def test_a_classical_model_cannot_be_tuned():
    plan = tiny_plan()
    assert check_tunable(plan) is plan
    with pytest.raises(ConfigError, match="without training settings to tune"):
        check_tunable(make_classical_plan())
