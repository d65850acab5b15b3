"""Drops on corrupted images against a count by hand, the choice of the images, and the gate that judges the drops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.config import EvaluateParams, GateParams, RobustnessGate
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.metrics_file import RobustnessScores
from segpipe.evaluation.robustness.corruptions import CORRUPTIONS, resample_to_labels
from segpipe.evaluation.robustness.drops import QUICK_IMAGES, SEED, _subset
from segpipe.evaluation.scores_file import read_scores
from segpipe.gates.case import Case
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import GateVerdict
from segpipe.metrics import confusion, macro, tallies
from tests.worlds.evaluated_workspace import make_samples, make_segmenter

QUICK = EvaluateParams(gallery=0, resamples=200, robustness="quick", surface=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardReader]:
    """An evaluation of thirty images, with corrupted ones."""
    folder = tmp_path_factory.mktemp("robust")
    write_shards(folder, "test", make_samples(30), 3)
    reader = ShardReader(folder, "test")
    evaluate_candidate(make_segmenter(0.05), reader, folder / "out", QUICK, "unet")
    return folder / "out", reader


def table_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())["test"]["robustness"]


def test_drops_are_those_of_the_same_images(measured: tuple[Path, ShardReader]) -> None:
    out, reader = measured
    table = table_of(out)
    indices = _subset(30, QUICK_IMAGES)
    assert table["images"] == table["units"] == len(indices) == 24
    assert set(table["by"]) == set(CORRUPTIONS) - {"jpeg"}, "JPEG does not apply to floats"
    assert all(set(row) == {"medium"} for row in table["by"].values())
    segmenter = make_segmenter(0.05)
    clean = np.zeros((3, 3), np.int64)
    for name, corruption in CORRUPTIONS.items():
        if name == "jpeg":
            continue
        total, clean = np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64)
        for index in indices:
            sample = reader[index]
            seed = (SEED, list(CORRUPTIONS).index(name), index)
            class_ids = segmenter.predict(
                corruption.apply(sample.image, segmenter.spec.normalisation, "medium", seed)
            ).class_ids
            total += confusion(sample.labels, resample_to_labels(class_ids, sample.labels.shape), 3)
            clean += confusion(sample.labels, segmenter.predict(sample.image).class_ids, 3)
        before, after = (float(macro("iou", tallies(counts))) for counts in (clean, total))
        row = table["by"][name]["medium"]
        assert table["score"] == pytest.approx(before, abs=1e-6) and row["score"] == pytest.approx(after, abs=1e-6)
        assert row["drop"] == pytest.approx(before - after, abs=2e-6) and row["low"] <= row["drop"] <= row["high"]
    assert table["by"]["noise"]["medium"]["drop"] > 0.1


def test_the_same_images_give_the_same_bytes(measured: tuple[Path, ShardReader], tmp_path: Path) -> None:
    out, reader = measured
    evaluate_candidate(make_segmenter(0.05), reader, tmp_path, QUICK, "unet")
    assert (tmp_path / "metrics.json").read_bytes() == (out / "metrics.json").read_bytes()


def test_full_takes_every_image_and_severity(tmp_path: Path, reader: ShardReader) -> None:
    evaluate_candidate(make_segmenter(0.05), reader, tmp_path, QUICK.model_copy(update={"robustness": "full"}), "unet")
    table = table_of(tmp_path)
    assert table["images"] == 20 and table["units"] == 8, "groups are resampled"
    drops = [table["by"]["noise"][severity]["drop"] for severity in ("light", "medium", "strong")]
    assert drops == sorted(drops) and drops[0] > 0


def test_off_costs_nothing(tmp_path: Path, reader: ShardReader) -> None:
    evaluate_candidate(make_segmenter(0.05), reader, tmp_path, EvaluateParams(gallery=0, resamples=200), "unet")
    assert "robustness" not in json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert EvaluateParams.model_validate({"robustness": False}).robustness == "off", "YAML reads off as false"


def verdict(out: Path, table: dict[str, Any] | None, **settings: Any) -> GateVerdict:
    gates = GateParams(floor=None, baseline=None, champion=None, test_size=None, robustness=RobustnessGate(**settings))
    scores = None if table is None else RobustnessScores.model_validate(table)
    return judge(gates, Case(QUICK, read_scores(out / "per_image.parquet"), robustness=scores))[0]


def test_the_gate_judges_the_upper_bound_of_the_largest_drop(measured: tuple[Path, ShardReader]) -> None:
    out, _ = measured
    table = table_of(out)
    by = {name: rows["medium"] for name, rows in table["by"].items()}
    worst = max(by, key=lambda name: by[name]["drop"])
    failed = verdict(out, table, at_most=0.02)
    assert (failed.verdict, failed.metric, failed.side, failed.blocks) == ("fail", "robustness.drop", "most", True)
    assert failed.estimate == by[failed.parts[0].name]["drop"] > 0.02 and len(failed.parts) == 5
    assert (
        failed.sentence.startswith(f"Fail: medium {failed.parts[0].name} lowers unet's test IoU")
        and "more than 0.020" in failed.sentence
    )
    allowed = verdict(out, table, at_most=1.0)
    assert allowed.verdict == "pass" and allowed.parts[0].name == max(by, key=lambda name: by[name]["high"])
    assert "no corruption lowers the score too much" in allowed.sentence
    between = (by[worst]["drop"] + by[worst]["high"]) / 2
    unsure = verdict(out, table, at_most=between, corruptions=[worst])
    assert unsure.verdict == "cannot tell" and len(unsure.parts) == 1
    assert f"may be as much as {by[worst]['high']:.3f} (97.5 % confidence, 24 images or groups)" in unsure.sentence


def test_without_measurements_the_gate_cannot_tell(measured: tuple[Path, ShardReader]) -> None:
    out, _ = measured
    table = table_of(out)
    for scores, settings, words in (
        (None, {}, "not scored on medium corrupted images; `evaluate.robustness: quick`"),
        (table, {"severity": "strong"}, "strong corrupted images; `evaluate.robustness: full`"),
        (table, {"corruptions": ["noise", "jpeg"]}, "not scored on medium jpeg"),
    ):
        result = verdict(out, scores, **settings)
        assert result.verdict == "cannot tell" and result.blocks and words in result.sentence
    single = {**table, "by": {"noise": {"medium": {"score": 0.5, "drop": 0.01}}}}
    assert "a single image gives no confidence bound" in verdict(out, single).sentence


def test_images_without_a_counted_pixel_have_no_drop(tmp_path: Path) -> None:
    blank = [replace(s, labels=np.full_like(s.labels, 255)) for s in make_samples(3)]
    write_shards(tmp_path, "test", blank, 3)
    evaluate_candidate(make_segmenter(0.0), ShardReader(tmp_path, "test"), tmp_path / "x", QUICK, "unet")
    assert json.loads((tmp_path / "x" / "metrics.json").read_text()) == {
        "test": {"images": 3, "pixels": 0},
        "engine": "reading",
    }


def test_noise_is_relative_to_the_brightness_of_each_volume():
    """If every volume is scaled by its own values, a volume that is a thousand times brighter is corrupted equally."""
    from segpipe.evaluation.robustness.drops import _corrupted_tally
    from segpipe.inference.preprocess import Normalisation
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.spec import SegmenterSpec
    from tests.worlds.volumes import TABLE, ellipsoid

    class Levels:
        name = "levels"

        def __call__(self, batch):
            return np.concatenate([-((batch[:, :1] - level) ** 2) for level in (-0.5, 2, 1)], 1)

    normalisation = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    spec = SegmenterSpec(
        candidate="c", family="unet3d", classes=TABLE, normalisation=normalisation, dims=3, patch3d=(16, 16, 16)
    )
    segmenter, sample = Segmenter(spec, Levels()), ellipsoid(3)
    bright = replace(sample, image=sample.image * np.float32(1024))
    plain, corrupted, bright_corrupted = (
        _corrupted_tally(segmenter, s, name, "medium", (1, 2))
        for s, name in ((sample, "brightness"), (sample, "noise"), (bright, "noise"))
    )
    assert corrupted[0].sum() < plain[0].sum() - 50
    np.testing.assert_allclose(bright_corrupted[0], corrupted[0], atol=20)
