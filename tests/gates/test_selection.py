"""Tests of the choice of the winner: ranked by validation score, judged on the test split, compared with the champion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.config import Params, parse_params
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.errors import ConfigError, DataError, MissingError
from segpipe.files import read_json, write_json, write_text
from segpipe.gates.selection import Selection
from segpipe.inference.scoring import bundle_for_scoring
from segpipe.inference.segmenter import Segmenter
from segpipe.samples import ClassTable
from tests.worlds.evaluated_workspace import PARAMS, make_samples, make_segmenter
from tests.worlds.judged_scores import select

Serve = Callable[[Segmenter], None]


def test_the_best_network_on_val_wins_and_is_judged(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    selection = select(workspace, params, fingerprint, shards)
    assert (selection.winner, selection.promotable, selection.champion) == ("unet", True, None)
    assert [r.candidate for r in selection.ranking] == ["unet", "deeplab", "kmeans"]
    assert [(g.name, g.verdict) for g in selection.gates] == [
        (name, "pass") for name in ("floor", "baseline", "champion", "test_size")
    ]
    top = selection.ranking[0]
    metrics = read_json(workspace / "evaluation" / "unet" / "metrics.json")["test"]
    assert top.test["iou.dataset.macro"] == pytest.approx(metrics["iou"]["dataset"]["macro"], abs=1e-6)
    assert top.interval.low < top.test["iou.dataset.macro"] < top.interval.high
    assert (selection.test_images, selection.data_hash, selection.classes) == (
        20,
        "d" * 64,
        ["background", "cell", "nucleus"],
    )
    assert selection.summary == "unet is the best of 2 networks on the validation split and passes every gate."


def test_test_scores_never_influence_the_choice(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    """deeplab is worse on test, but wins with the better validation score."""
    path = workspace / "evaluation" / "deeplab" / "metrics.json"
    metrics = read_json(path)
    metrics["val"]["iou"]["dataset"]["macro"] = 0.9
    write_json(path, metrics)
    selection = select(workspace, params, fingerprint, shards)
    assert selection.winner == "deeplab"
    assert selection.ranking[0].test["iou.dataset.macro"] < selection.ranking[1].test["iou.dataset.macro"]


def test_a_detector_competes_with_networks(workspace: Path, fingerprint: Fingerprint, shards: Path) -> None:
    families = {"unet": "mask_rcnn", "deeplab": "deeplabv3plus", "kmeans": "kmeans"}
    candidates = ", ".join(f"{name}: {{family: {family}}}" for name, family in families.items())
    selection = select(workspace, parse_params(f"candidates: {{{candidates}}}"), fingerprint, shards)
    assert (selection.winner, selection.ranking[0].kind) == ("unet", "detector")
    assert selection.summary.startswith("unet is the best of 2 networks")


def test_a_classical_candidate_never_wins(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path
) -> None:
    path = workspace / "evaluation" / "kmeans" / "metrics.json"
    write_json(path, read_json(path) | {"val": {"iou": {"dataset": {"macro": 0.99}}}})
    assert select(workspace, params, fingerprint, shards).winner == "unet"
    alone = parse_params("candidates: {kmeans: {family: kmeans}}")
    selection = select(workspace, alone, fingerprint, shards)
    assert (selection.winner, selection.promotable, selection.gates) == (None, False, [])
    assert "no candidate is a network" in selection.summary


def test_a_gate_that_fails_holds_the_winner_back(workspace: Path, fingerprint: Fingerprint, shards: Path) -> None:
    strict = parse_params(PARAMS + "gates: {floor: {at_least: 0.99}, champion: null}")
    selection = select(workspace, strict, fingerprint, shards)
    assert not selection.promotable and selection.winner == "unet"
    assert [(g.name, g.verdict) for g in selection.gates] == [
        ("floor", "fail"),
        ("baseline", "pass"),
        ("test_size", "pass"),
    ]
    assert selection.summary.endswith("but is held back by the floor gate.")


def test_the_champion_is_scored_on_the_current_images(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, serve: Serve
) -> None:
    serve(make_segmenter(0.0, "unet", data="d0"))
    selection = select(workspace, params, fingerprint, shards)
    assert selection.champion.version == "v0.2.0" and selection.champion.test["iou.dataset.macro"] == 1
    assert not selection.champion.same_model
    assert selection.gates[2].verdict == "fail" and not selection.promotable
    serve(make_segmenter(0.2, "unet"))
    selection = select(workspace, params, fingerprint, shards)
    assert selection.gates[2].verdict == "pass" and selection.promotable


def test_a_winner_that_is_the_same_model_as_the_champion_is_recognised(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, serve: Serve
) -> None:
    serve(make_segmenter(0.05, "unet", data="d1", plan="p-unet", weights_sha256="w1"))
    selection = select(workspace, params, fingerprint, shards)
    assert selection.champion.same_model and selection.gates[2].verdict == "pass"
    serve(make_segmenter(0.05, "unet", data="d1", plan="another"))
    assert not select(workspace, params, fingerprint, shards).champion.same_model


def test_a_champion_is_compared_in_the_arithmetic_of_the_winner(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, serve: Serve
) -> None:
    """The engines are the same, or the sentence names both; an evaluation whose engine is unknown is refused."""
    champion = make_segmenter(0.2, "unet")
    serve(champion)
    selection = select(workspace, params, fingerprint, shards)
    assert selection.champion.engine == "reading" and "was scored on" not in selection.gates[2].sentence
    path = workspace / "evaluation" / "unet" / "metrics.json"
    metrics = read_json(path)
    write_json(path, metrics | {"engine": "torch"})
    selection = select(workspace, params, fingerprint, shards)
    assert selection.gates[2].verdict == "pass"
    assert "unet was scored on torch, the champion on reading" in selection.gates[2].sentence
    del metrics["engine"]
    write_json(path, metrics)
    selection = select(workspace, params, fingerprint, shards)
    assert selection.gates[2].verdict == "cannot tell" and not selection.promotable
    assert "`dvc repro -s -f evaluate@unet` evaluates it again" in selection.gates[2].sentence


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": "openvino-bf16"}, "onnxruntime"),
        ({"engine": "openvino-int8"}, "onnxruntime"),
        ({"engine": "openvino"}, "onnxruntime"),
        ({"engine": "openvino-bf16", "dims": 3, "patch3d": (8, 16, 16)}, "openvino"),
        ({"engine": "torch", "task": "instance"}, "torch"),
    ],
)
def test_a_bundle_is_scored_in_float32_whatever_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], expected: str
) -> None:
    loaded = []
    monkeypatch.setattr(Segmenter, "from_bundle", lambda *arguments: loaded.append(arguments[1]))
    make_segmenter(0).with_changes(**changes).spec.write(tmp_path)
    bundle_for_scoring(tmp_path, make_samples(1))
    assert loaded == [expected]


def test_a_champion_with_other_classes_cannot_be_compared(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, serve: Serve
) -> None:
    serve(make_segmenter(0.0, classes=ClassTable.from_names(["background", "cell"])))
    selection = select(workspace, params, fingerprint, shards)
    assert selection.gates[2].verdict == "cannot tell" and not selection.promotable
    assert (
        "its classes are background, cell, those of the data are background, cell, nucleus"
        in selection.gates[2].sentence
    )
    assert selection.champion.test == {} and selection.champion.why_not


def test_the_same_evaluations_give_the_same_bytes(
    workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path, tmp_path: Path
) -> None:
    texts = []
    for _ in range(2):
        write_text(
            tmp_path / "selection.json", select(workspace, params, fingerprint, shards).model_dump_json(indent=2)
        )
        texts.append((tmp_path / "selection.json").read_text())
    assert texts[0] == texts[1]
    assert str(workspace) not in texts[0]
    assert Selection.read(tmp_path / "selection.json").winner == "unet"
    json.loads(texts[0], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_missing_scores_are_named(workspace: Path, params: Params, fingerprint: Fingerprint, shards: Path) -> None:
    path = workspace / "evaluation" / "deeplab" / "metrics.json"
    metrics = read_json(path)
    write_json(path, {"test": metrics["test"]})
    with pytest.raises(DataError, match=r"evaluation/deeplab/metrics.json.*dvc repro train@deeplab"):
        select(workspace, params, fingerprint, shards)
    (workspace / "evaluation" / "deeplab" / "per_image.parquet").unlink()
    with pytest.raises(MissingError, match="no scores here"):
        select(workspace, params, fingerprint, shards)


def test_an_unknown_gate_metric_stops_the_stage(workspace: Path, fingerprint: Fingerprint, shards: Path) -> None:
    wrong = parse_params(PARAMS + "gates: {champion: {metric: iou.macro}}")
    with pytest.raises(ConfigError, match=r"no such metric \(found iou.macro\)"):
        select(workspace, wrong, fingerprint, shards)


def test_the_selection_has_the_measurements_of_the_evaluation(
    workspace: Path, fingerprint: Fingerprint, shards: Path
) -> None:
    """The winner's temperature goes into the bundle, and its drop on corrupted images to the gate."""
    params = parse_params(PARAMS + "gates: {robustness: {at_most: 0.2, corruptions: [blur]}}")
    selection = select(workspace, params, fingerprint, shards)
    assert selection.temperature == 1 and selection.gates[3].name == "robustness"
    assert selection.gates[3].verdict == "cannot tell" and not selection.promotable
    path = workspace / "evaluation" / "unet" / "metrics.json"
    metrics = read_json(path)
    metrics["val"]["calibration"] = {"temperature": 1.75}
    row = {"score": 0.5, "drop": 0.05, "low": 0.01, "high": 0.1}
    metrics["test"]["robustness"] = {"images": 20, "units": 8, "score": 0.55, "by": {"blur": {"medium": row}}}
    write_json(path, metrics)
    selection = select(workspace, params, fingerprint, shards)
    assert selection.temperature == 1.75 and selection.promotable
    assert selection.gates[3].sentence == (
        "Pass: no corruption lowers the score too much; medium blur lowers unet's test IoU (macro, dataset) of 0.550 by 0.050 on 20 "
        "images, the largest drop: at most 0.100 with 97.5 % confidence, and 0.200 is allowed."
    )
