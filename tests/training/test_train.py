"""Whole trainings: their files, the same bytes after a kill, errors."""

import json
import signal
import threading

import numpy as np
import pytest
import torch

from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.files import sha256_file
from segpipe.inference.trained_model import load_trained
from segpipe.training.checkpoint import load_checkpoint
from segpipe.training.machine import has_bf16
from segpipe.training.plan import StepSetting
from segpipe.training.scoring import score_split
from segpipe.training.step import Stepper, build_stepper
from segpipe.training.train import train, train_on
from tests.worlds.tiny_training import CLASSES, fingerprint_of, make_classical_plan, make_plan


def run(folder, plan, readers) -> str:
    train_on(plan, CLASSES, *readers, folder / "out", folder / "live", folder / "checkpoints")
    return sha256_file(folder / "out" / "weights.safetensors")


@pytest.fixture
def readers(train_reader, val_reader):
    return train_reader, val_reader


def test_files_of_a_training(tmp_path, readers):
    plan = make_plan()
    run(tmp_path, plan, readers)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [entry["step"] for entry in history["train"]] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in history["val"]] == [3, 6]
    assert history["best_score"] == max(entry["iou_macro"] for entry in history["val"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "history.json",
        "segmenter.json",
        "weights.safetensors",
    ]
    assert (tmp_path / "live" / "metrics.json").exists()
    curve = (tmp_path / "live" / "plots" / "metrics" / "train" / "loss.tsv").read_text().splitlines()
    assert len(curve) == 7
    assert list((tmp_path / "checkpoints").glob("*")) == [], "a training that is complete needs no checkpoint"
    segmenter = load_trained(tmp_path / "out")
    assert segmenter.spec.lineage["plan"] == plan.sha256
    score = score_split(segmenter, readers[1])
    assert score.iou_macro == pytest.approx(history["best_score"], abs=1e-4), (
        "the weights that were kept are those that were scored"
    )


needs_bf16 = pytest.mark.skipif(not has_bf16("cpu"), reason="this CPU does not compute in bfloat16")


@pytest.mark.parametrize(
    "setting",
    [
        StepSetting(precision="fp32", channels_last=False),
        StepSetting(precision="fp32", channels_last=True),
        pytest.param(StepSetting(precision="bf16", channels_last=True), marks=needs_bf16),
    ],
    ids=str,
)
def test_the_same_plan_gives_the_same_bytes_also_after_a_kill(tmp_path, readers, setting, monkeypatch):
    plan = make_plan(setting, checkpoint_every=2, patch=32)
    whole = run(tmp_path / "a", plan, readers)
    assert run(tmp_path / "b", plan, readers) == whole, "two runs differ"

    class Killed(BaseException):
        pass

    step = Stepper.step

    def killed_at_five(self, number, *rest):
        if number == 5:
            raise Killed
        return step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", killed_at_five)
        with pytest.raises(Killed):
            run(tmp_path / "c", plan, readers)
    assert [p.name for p in sorted((tmp_path / "c" / "checkpoints").iterdir())] == [
        f"{n:09d}.safetensors" for n in (2, 4)
    ]
    steps = []
    monkeypatch.setattr(
        Stepper, "step", lambda self, number, *rest: (steps.append(number), step(self, number, *rest))[1]
    )
    assert run(tmp_path / "c", plan, readers) == whole, "a resumed run differs from one that was not interrupted"
    assert steps == [4, 5], "it continued from the checkpoint after step 4"
    assert (tmp_path / "a/out/history.json").read_bytes() == (tmp_path / "c/out/history.json").read_bytes()


def test_ctrl_c_writes_a_checkpoint_and_restores_the_signal_handlers(tmp_path, readers, monkeypatch):
    plan = make_plan(steps=50, val_every=50)
    step = Stepper.step

    def interrupted(self, number, *rest):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, *rest)

    monkeypatch.setattr(Stepper, "step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, plan, readers)
    assert signal.getsignal(signal.SIGINT) is before
    _, state = load_checkpoint(tmp_path / "checkpoints", plan, build_stepper(plan))
    assert state.step == 3


def test_training_runs_outside_the_main_thread(tmp_path, readers):
    failures = []

    def work():
        try:
            run(tmp_path, make_plan(steps=1, val_every=1), readers)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and (tmp_path / "out" / "weights.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_training_with_advice(tmp_path, readers, monkeypatch):
    monkeypatch.setattr(Stepper, "step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(SegpipeError, match=r"diverged.*train\.learning_rate to 0\.0005"):
        run(tmp_path, make_plan(), readers)
    assert not (tmp_path / "out").exists()


def test_a_plan_for_other_data_is_refused(tmp_path, readers, monkeypatch):
    monkeypatch.setattr("segpipe.data.shards.ShardReader", lambda *_: readers[0])
    with pytest.raises(DataError, match="other data"):
        train(make_plan(), fingerprint_of(readers[0], data_hash="e" * 64), tmp_path, tmp_path, tmp_path, tmp_path)


def test_first_weights_that_differ_from_the_planned_ones_are_refused():
    plan = make_plan().model_copy(update={"encoder_sha256": "0" * 64})
    with pytest.raises(ConfigError, match=r"not those that the plan was made with.*segpipe plan tiny --refresh"):
        build_stepper(plan)


def test_a_classical_family_is_fitted(tmp_path, readers):
    plan = make_classical_plan()
    run(tmp_path / "a", plan, readers)
    run(tmp_path / "b", plan, readers)
    assert (tmp_path / "a/out/weights.safetensors").read_bytes() == (
        tmp_path / "b/out/weights.safetensors"
    ).read_bytes()
    score = score_split(load_trained(tmp_path / "a" / "out"), readers[1])
    history = json.loads((tmp_path / "a" / "out" / "history.json").read_text())
    assert score.iou_macro == pytest.approx(history["best_score"], abs=1e-6) and score.iou_macro > 0.4
    assert (tmp_path / "a" / "live" / "metrics.json").exists()


def test_a_network_learns(tmp_path, readers):
    """Validated often: normalisation over so few pixels varies from step to step, and the best weights are kept."""
    changes = {"learning_rate": 4e-3, "warmup_steps": 5, "ema": 0.8, "augment": "off"}
    plan = make_plan(steps=60, patch=32, batch=4, val_every=10, **changes)
    run(tmp_path, plan, readers)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    losses = [entry["loss"] for entry in history["train"]]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5]) and history["best_score"] > 0.5
