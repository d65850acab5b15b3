"""The cache of speeds: its folder, its keys, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.config import TrainParams
from segpipe.training.plan import StepSetting
from segpipe.training.speed import speed_cache
from segpipe.training.speed.speed_cache import (
    VARIABLE,
    KnownPrice,
    KnownSpeed,
    cache_folder,
    entry_path,
    recall,
    remember,
    speed_key,
)
from tests.worlds.tiny_training import make_plan


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "speeds"))
    return tmp_path / "speeds"


def key_of(plan=None, device="cpu", comparison="none", **settings):
    return speed_key(plan or make_plan(), TrainParams(**settings), device, comparison)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    monkeypatch.delenv(VARIABLE)
    for base in ("", "relative/folder"):  # which the XDG specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache_folder() == tmp_path / "me" / ".cache" / "segpipe" / "speeds"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "segpipe" / "speeds"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"
    monkeypatch.setenv(VARIABLE, "off")
    assert cache_folder() is None


def test_what_is_remembered_is_recalled(cache, capsys):
    price = KnownPrice(key=key_of(), ms_per_step=120.5)
    speed = KnownSpeed(
        key=key_of(),
        setting=StepSetting(precision="bf16", channels_last=True),
        workers=1,
        timings=[],
        ms_per_step=250.25,
        ms_cheaper=[80.0],
        step_ms={"steps": 250.25},
        peak_memory_mib=900,
        compile_s=0.0,
    )
    assert recall(price.key, KnownPrice) is None and recall(speed.key, KnownSpeed) is None
    remember(price)
    remember(speed)
    assert recall(key_of(), KnownPrice) == price and recall(key_of(), KnownSpeed) == speed
    remember(price.model_copy(update={"ms_per_step": 90.0}))
    assert recall(key_of(), KnownPrice).ms_per_step == 90.0, "the latest"
    assert len(list(cache.iterdir())) == 2, "no temporary file is left"
    assert capsys.readouterr().err == ""


def test_nothing_is_read_or_written_if_it_is_off(cache, monkeypatch):
    remember(KnownPrice(key=key_of(), ms_per_step=1.0))
    monkeypatch.setenv(VARIABLE, "OFF")
    assert recall(key_of(), KnownPrice) is None and entry_path(key_of(), KnownPrice) is None
    monkeypatch.chdir(cache)
    remember(KnownPrice(key=key_of(seed=1), ms_per_step=1.0))
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"key": {}, "ms_per_step": "fast"}', "is not a valid entry of the speed cache"),
        ('{"key": {}, "ms_per_step": 1.0}', "belongs to another machine or network"),
        (" " * (1 << 20) + "{}", "too large"),
    ],
)
def test_a_file_that_cannot_be_used_is_reported_and_replaced(cache, capsys, content, message):
    path = entry_path(key_of(), KnownPrice)
    path.parent.mkdir()
    path.write_text(content)
    assert recall(key_of(), KnownPrice) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and str(path) in line and line.endswith("speeds are measured again")
    remember(KnownPrice(key=key_of(), ms_per_step=2.0))
    assert recall(key_of(), KnownPrice).ms_per_step == 2.0


def test_a_folder_that_cannot_be_written_to_stops_nothing(cache, capsys):
    cache.write_text("a file")
    remember(KnownPrice(key=key_of(), ms_per_step=2.0))
    assert recall(key_of(), KnownPrice) is None
    assert "speeds are not kept for later plans" in capsys.readouterr().err


def test_the_key_names_what_speed_depends_on(monkeypatch):
    plan, key = make_plan(), key_of()
    assert json.loads(json.dumps(key)) == key
    same = [
        make_plan(steps=99, learning_rate=1e-4, class_weights=[1.0, 1.0, 1.0], schedule="poly", rare_crops=0.1),
        make_plan(loss={"cross_entropy": 0.2, "dice": 3.0}),
        plan.model_copy(update={"seed": 9, "candidate": "other", "data_hash": "e" * 64}),
        plan.model_copy(update={"options": plan.options | {"encoder_weights": "imagenet"}}),
    ]
    assert all(key_of(other) == key for other in same)
    assert key_of(budget="3h", seed=4) == key
    others = [
        key_of(make_plan(patch=96)),
        key_of(make_plan(batch=4)),
        key_of(make_plan(accumulate=2)),
        key_of(make_plan(augment="off")),
        key_of(make_plan(optimizer="muon")),
        key_of(make_plan(ema=0.0)),
        key_of(make_plan(loss={"boundary": 1.0})),
        key_of(make_plan(channels=1)),
        key_of(make_plan(dtype="uint16")),
        key_of(plan.model_copy(update={"options": plan.options | {"encoder": "resnet18"}})),
        key_of(plan.model_copy(update={"classes": 4})),
        key_of(precision="fp32"),
        key_of(devices=2),
        key_of(freeze_encoder=0.5),
        key_of(comparison="settings"),
    ]
    monkeypatch.setattr(speed_cache, "_version", lambda name: f"{name} 99")
    others.append(key_of())
    monkeypatch.undo()
    monkeypatch.setattr(speed_cache, "available_cores", lambda: 77)
    others.append(key_of())
    assert len({json.dumps(each, sort_keys=True) for each in [key, *others]}) == 1 + len(others)
