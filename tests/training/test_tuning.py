import pytest
import yaml
from segpipe.training.planning.label_statistics import balance_class_weights

from segpipe.config import TrainParams
from segpipe.errors import ConfigError, SegpipeError
from segpipe.training import tuning
from segpipe.training.tuning import Search, trial_steps
from tests.worlds.tiny_training import fingerprint_of
from tests.worlds.trainings import tiny_plan


@pytest.fixture
def search(tmp_path, train_reader):
    plan = tiny_plan(steps=40, loss={"cross_entropy": {"weight": 1, "label_smoothing": 0.1}, "dice": 0.5})

    def make(folder="a", steps=10, **wanted):
        return Search(plan, TrainParams(**wanted), fingerprint_of(train_reader), steps, tmp_path / folder)

    return make


def score_by_rate(scores):
    """A training that takes no time: its score follows from its learning rate alone; ``scores(rate, step)``."""

    def train_on(plan, classes, train, val, out, live, checkpoints, watch):
        for step in (2, 4, 6, 8, 10):
            watch(step, scores(plan.recipe.learning_rate, step))
        out.mkdir(parents=True)
        (out / "history.json").write_text(f'{{"best_score": {scores(plan.recipe.learning_rate, 10)}}}')

    return train_on


def bump(rate, step=10):
    """Best at 1e-2, five times the rate as it is."""
    import math

    return max(0.0, 1 - abs(math.log10(rate / 1e-2))) * step / 10


def test_it_begins_with_the_settings_as_they_are_and_finds_better_ones(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    one = search()
    one.run(18, None, None)
    tried = one.tried()
    first = next(t for t in tried if t.number == 0)
    assert first.settings["learning_rate"] == 2e-3 and first.settings["augment"] == "medium"
    assert len(tried) == 18 and tried[0].score > first.score + 0.3 and tried[0].ended == "finished"
    assert any(t.ended == "fell behind" for t in tried), "the pruner ends some early"


def test_a_trial_is_the_plan_with_its_settings_and_short(search, train_reader):
    one = search()
    settings = {
        "learning_rate": 0.01,
        "weight_decay": 0.2,
        "rare_crops": 0.7,
        "class_balance": 1.0,
        "augment": "light",
        "loss": {"cross_entropy": {"weight": 1.0, "label_smoothing": 0.1}, "dice": 1.5},
    }
    recipe = one.planned(settings).recipe
    assert one.planned(settings).settings is None, "its pace was planned by nobody"
    weights = balance_class_weights(fingerprint_of(train_reader).class_pixels["train"], 1.0)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.rare_crops, recipe.augment) == (0.01, 0.2, 0.7, "light")
    assert recipe.class_weights == weights and recipe.loss.dice.weight == 1.5
    assert recipe.loss.cross_entropy.label_smoothing == 0.1, "options of terms stay"
    assert (recipe.steps, recipe.val_every, recipe.tta, recipe.cleaning) == (10, 2, "none", "none")
    assert trial_steps(one.plan) == 40 and recipe.batch == one.plan.recipe.batch


def test_what_was_set_by_hand_is_not_tuned(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    one = search(class_weights={"ground": 1, "disc": 2, "bar": 3}, warmup=0.5)
    one.run(6, None, None)
    assert not any("class_balance" in tried.settings for tried in one.tried())
    recipe = one.planned(one.tried()[0].settings).recipe
    assert recipe.class_weights == one.plan.recipe.class_weights and recipe.warmup_steps == 5


def test_what_is_found_are_settings_of_params_yaml(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    one = search()
    one.run(6, None, None)
    for tried in one.tried():
        settings = yaml.safe_load(yaml.safe_dump(tried.settings))
        TrainParams.model_validate(settings)
        assert one.planned(settings).recipe.learning_rate == settings["learning_rate"]


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_with_the_trial_it_was_at(
    search, monkeypatch, train_reader, val_reader, capfd
):
    seen, real = [], tuning.train_on

    def stopped_in_the_second(plan, *rest, watch):
        def look(step, score):
            seen.append((plan.sha256, step))
            if len(seen) == 7:
                raise KeyboardInterrupt
            watch(step, score)

        real(
            plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"checkpoint_every": 1})}),
            *rest,
            watch=look,
        )

    monkeypatch.setattr(tuning, "train_on", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        search().run(2, train_reader, val_reader)
    assert [step for _, step in seen] == [2, 4, 6, 8, 10, 2, 4]
    again = search()
    again.run(2, train_reader, val_reader)
    assert len(again.tried()) == 2 and len(seen) > 7
    assert {sha for sha, _ in seen[7:]} == {seen[6][0]}, "the same settings"
    assert "goes on from step 3" in capfd.readouterr().err, "from its checkpoint"
    again.run(2, train_reader, val_reader)
    assert len(again.tried()) == 2, "as many as asked for, those before included"


def test_two_searches_share_the_trials(search, monkeypatch):
    monkeypatch.setattr(tuning, "train_on", score_by_rate(bump))
    one, two = search(), search()
    one.run(3, None, None)
    two.run(5, None, None)
    assert len(one.tried()) == len(two.tried()) == 5
    assert sum(t.settings["learning_rate"] == 2e-3 for t in one.tried()) == 1, "the settings as they are, once"


def test_a_trial_that_diverges_is_the_worst_and_other_errors_are_told(search, monkeypatch):
    def diverges(plan, *_, watch):
        raise SegpipeError("training diverged")

    monkeypatch.setattr(tuning, "train_on", diverges)
    one = search()
    one.run(2, None, None)
    assert [(t.score, t.ended) for t in one.tried()] == [(0.0, "diverged")] * 2

    def can_not(plan, *_, watch):
        raise ConfigError("out of memory")

    monkeypatch.setattr(tuning, "train_on", can_not)
    with pytest.raises(ConfigError, match="out of memory"):
        search("b").run(2, None, None)


def test_what_is_fitted_can_not_be_tuned(tmp_path, train_reader):
    plan = tiny_plan().model_copy(update={"recipe": None, "execution": None})
    with pytest.raises(ConfigError, match="no training to tune"):
        Search(plan, TrainParams(), fingerprint_of(train_reader), 10, tmp_path)
