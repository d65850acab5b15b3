"""The members of an ensemble: the images that each sees, the cost of a kill, and the model that they form."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segpipe.files import sha256_file
from segpipe.inference.out_of_fold import OutOfFoldSegmenter
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.trained_model import load_trained
from segpipe.samples import Sample
from segpipe.training import ensemble
from segpipe.training.ensemble import train_members
from segpipe.training.finishing import postprocess_search
from segpipe.training.finishing.cleaning_search import CleaningChoice
from segpipe.training.folds import FoldImages, member_plan
from segpipe.training.plan import Folds, VolumeGrid
from segpipe.training.scoring import count_split, score_confusion
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, draw
from tests.worlds.trainings import tiny_plan
from tests.worlds.volumes import TABLE, ellipsoid, register

STEPS = 6


class Spy(MemoryReader):
    """Records which samples are read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.read_keys = []

    def __getitem__(self, index):
        self.read_keys.append(self.samples[index].key)
        return super().__getitem__(index)


def planned(**recipe):
    plan = tiny_plan(**({"steps": STEPS, "val_every": 3, "learning_rate": 2e-2, "augment": "light"} | recipe))
    return plan.model_copy(update={"folds": Folds(count=3, dealt="groups")})


def deal():
    train, val = (Spy([draw(i, 48, 48) for i in numbers]) for numbers in (range(6), range(100, 103)))
    return FoldImages((train, val), [*train.keys, *val.keys], [0, 1, 2, 0, 1, 2, 0, 1, 2])


def run(folder, plan=None, fold_images=None):
    fold_images = fold_images or deal()
    folders = folder / "out", folder / "live", folder / "checkpoints" / "tiny"
    train_members(plan or planned(), CLASSES, fold_images, fold_images.readers[1], *folders)
    return folder / "out"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("whole"))


def digests(out):
    return {path.name: sha256_file(path) for path in out.iterdir()}


def test_no_member_sees_its_fold_before_it_is_judged_on_it(tmp_path, monkeypatch):
    fold_images, keys_by_seed, real = deal(), {}, ensemble.train_on

    def spied(plan, classes, train, val, *folders):
        for reader in fold_images.readers:
            reader.read_keys.clear()
        trained_on = {train[i].key for i in range(len(train))}
        judged_on = {val[i].key for i in range(len(val))}
        keys_by_seed[plan.seed] = trained_on, judged_on
        for reader in fold_images.readers:
            reader.read_keys.clear()
        monkeypatch.setattr("segpipe.training.loop.TrainingLoop._validate", lambda self: validate(self, plan.seed))
        real(plan, classes, train, val, *folders)

    def validate(run, seed):
        read_keys = {key for reader in fold_images.readers for key in reader.read_keys}
        assert read_keys <= keys_by_seed[seed][0], "before a validation, only the member's training images were read"
        run.state.best_score, run.state.best_step = 0.5, run.state.step
        run.best = {name: value.clone() for name, value in run.stepper.average.state_dict().items()}
        run.state.val.append({"step": run.state.step, "iou_macro": 0.5, "pixel_accuracy": 0.5})
        return run.state.val[-1]

    monkeypatch.setattr(ensemble, "train_on", spied)
    run(tmp_path, fold_images=fold_images)
    assert len(keys_by_seed) == 3
    for fold, (trained_on, judged_on) in enumerate(keys_by_seed.values()):
        assert judged_on == {key for key, number in fold_images.fold_by_key.items() if number == fold}
        assert not trained_on & judged_on and trained_on | judged_on == set(fold_images.keys)


def test_the_ensemble_is_the_mean_of_members_trained_alone(whole, tmp_path):
    fold_images, plan = deal(), planned()
    weights = load_file(whole / "weights.safetensors")
    image, outputs = draw(500, 48, 48).image, []
    for fold in range(3):
        folder = tmp_path / str(fold)
        ensemble.train_on(
            member_plan(plan, fold),
            CLASSES,
            fold_images.without_fold(fold),
            fold_images.only_fold(fold),
            folder / "out",
            folder / "live",
            folder / "checkpoints",
        )
        alone = load_file(folder / "out" / "weights.safetensors")
        assert all(torch.equal(value, weights[f"members.{fold}.{name}"]) for name, value in alone.items())
        outputs.append(load_trained(folder / "out").predict(image, probabilities=True).probabilities)
    assert not np.allclose(outputs[0], outputs[1], atol=1e-3)
    together = load_trained(whole)
    assert (
        isinstance(together, OutOfFoldSegmenter)
        and together.spec.members == 3
        and together.fold_of == fold_images.fold_by_key
    )
    np.testing.assert_allclose(
        together.predict(image, probabilities=True).probabilities, np.mean(outputs, 0), atol=2e-6
    )
    left_out = Sample("s100", image, None)
    assert np.array_equal(together.segment(left_out, probabilities=True).probabilities, outputs[0])


def test_its_score_on_val_is_out_of_fold(whole):
    history, val, judge = json.loads((whole / "history.json").read_text()), deal().readers[1], load_trained(whole)
    expected = sum(count_split(judge.members[fold], val, [index]) for index, fold in enumerate((0, 1, 2)))
    assert history["best_score"] == pytest.approx(score_confusion(expected).iou_macro, abs=1e-6)
    scores = [member["best_score"] for member in history["members"]]
    assert history["folds"]["scores"] == scores and len(set(scores)) > 1
    assert history["folds"]["mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert history["folds"]["sd"] == pytest.approx(np.std(scores, ddof=1), abs=1e-6)


def test_curves_of_members_follow_one_another(whole):
    rows = [
        line.split("\t")
        for line in (whole.parent / "live" / "plots" / "metrics" / "val" / "iou_macro.tsv").read_text().splitlines()
    ]
    column = rows[0].index("step")
    assert [int(row[column]) for row in rows[1:]] == [3, 6, 9, 12, 15, 18]
    metrics = json.loads((whole.parent / "live" / "metrics.json").read_text())
    assert metrics["train"]["images_per_s"] > 0 and metrics["step"] == 18
    parts = json.loads((whole.parent / "live" / "bottleneck.json").read_text())
    assert sum(part["share"] for part in parts) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("step", [2, 6], ids=["within a member", "at its last step"])
def test_a_stopped_training_continues_with_its_member(whole, tmp_path, monkeypatch, step):
    from segpipe.training import loop

    real, steps, names = loop.step_within_memory, [], []

    def stopping(stepper, number, *rest):
        steps.append(number)
        if len(steps) == STEPS + step:
            raise KeyboardInterrupt
        return real(stepper, number, *rest)

    monkeypatch.setattr(loop, "step_within_memory", stopping)
    plan = planned(checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, plan)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(
        loop,
        "step_within_memory",
        lambda stepper, number, *rest: (names.append(number), real(stepper, number, *rest))[1],
    )
    out = run(tmp_path, plan)
    assert names == [*range(step - 1, STEPS), *range(STEPS)], "the first member is not trained again"
    undisturbed = run(tmp_path / "undisturbed", plan)
    assert digests(out) == digests(undisturbed)
    assert load_file(out / "weights.safetensors").keys() == load_file(whole / "weights.safetensors").keys()
    assert not list((tmp_path / "checkpoints" / "tiny").iterdir())


def test_members_of_another_plan_are_trained_again(tmp_path, monkeypatch):
    trained, real = [], ensemble.train_on

    def count(plan, *rest):
        trained.append(plan.seed)
        real(plan, *rest)

    monkeypatch.setattr(ensemble, "train_on", count)
    monkeypatch.setattr(ensemble, "_assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for plan in (planned(), planned(), planned(learning_rate=1e-2)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, plan)
    assert len(trained) == 6
    (tmp_path / "checkpoints" / "tiny" / "folds" / "1" / "done").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, planned(learning_rate=1e-2))
    assert len(trained) == 7


def test_the_cleaning_of_an_ensemble_is_chosen_out_of_fold(tmp_path, monkeypatch):
    calls = []

    def choose(segmenter, val, *_):
        calls.append((isinstance(segmenter, OutOfFoldSegmenter), [val[i].key for i in range(len(val))]))
        return CleaningChoice(None, np.zeros((1, 3, 3), int), np.zeros((1, 3, 3), int))

    monkeypatch.setattr(postprocess_search, "choose_cleaning", choose)
    monkeypatch.setattr("segpipe.training.finishing.postprocess_search.MIN_IMAGES", 2)
    out = run(tmp_path, planned(cleaning="auto", tta="mirror"))
    assert calls == [(True, ["s100", "s101", "s102"])]
    judge, val = load_trained(out), deal().readers[1]
    assert judge.spec.tta == "mirror"
    history = json.loads((out / "history.json").read_text())
    for key, model in (("best_score", judge.with_changes(tta="none")), ("finished_score", judge)):
        assert history[key] == pytest.approx(score_confusion(count_split(model, val, range(3))).iou_macro, abs=1e-6)


def test_one_network_replaces_members_that_were_not_finished(tmp_path):
    """`train.folds` was removed after a kill."""
    member_checkpoints = tmp_path / "checkpoints" / "folds" / "0" / "checkpoints"
    member_checkpoints.mkdir(parents=True)
    (member_checkpoints / "000000003.safetensors").write_bytes(b"part of a training")
    fold_images = deal()
    plan = planned().model_copy(update={"folds": None})
    ensemble.train_on(
        plan, CLASSES, *fold_images.readers, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints"
    )
    assert load_trained(tmp_path / "out").spec.members == 1 and not list((tmp_path / "checkpoints").iterdir())


def test_volumes_have_members_too(tmp_path):
    register()
    train, val = (MemoryReader([ellipsoid(i, (12, 16, 12)) for i in numbers]) for numbers in (range(4), range(10, 12)))
    keys = [sample.key for reader in (train, val) for sample in reader.samples]
    fold_images = FoldImages((train, val), keys, [0, 1, 0, 1, 0, 1])
    plan = planned(val_every=6).model_copy(
        update={
            "family": "tiny3d",
            "options": {},
            "folds": Folds(count=2, dealt="groups"),
            "dtype": "float32",
            "normalisation": Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True),
            "volume": VolumeGrid(patch=(8, 8, 8), spacing=None, flips=(True, True, True)),
        }
    )
    train_members(plan, TABLE, fold_images, val, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
    model, sample = load_trained(tmp_path / "out"), train[1]
    outputs = [member.segment(sample, probabilities=True).probabilities for member in model.members]
    np.testing.assert_allclose(
        model.predict(sample.image, probabilities=True).probabilities, np.mean(outputs, 0), atol=2e-6
    )
    assert np.array_equal(model.segment(sample, probabilities=True).probabilities, outputs[1])
    assert not np.allclose(outputs[0], outputs[1], atol=1e-3)
