"""Slices: attributes of images, a loss in a slice that is found, and equal models without a loss."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from segpipe.config import EvaluateParams, GateParams, SliceGate
from segpipe.data.shards import ShardReader
from segpipe.evaluation.evaluate import CandidateFacts, evaluate_candidate
from segpipe.evaluation.metrics_file import FoldSummary
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.slice_attributes import image_attributes, median_instance_area, read_columns
from segpipe.evaluation.slices import compare_slices, cut_slices
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import GateVerdict
from segpipe.metrics import metric
from segpipe.samples import IGNORE, Sample
from tests.worlds.evaluated_workspace import CLASSES, make_samples, make_segmenter
from tests.worlds.judged_scores import on_images

QUICK = EvaluateParams(resamples=400, gallery=1)
NAMES = ["background", "cell"]


def scored(name: str, accuracy: np.ndarray, attributes: list[dict], noise: int = 0, spread: float = 0.03) -> Scores:
    """Return the counts of a model that is right on about this share of the pixels of each image, (images,)."""
    rng = np.random.default_rng(noise)
    shares = np.clip(accuracy + spread * rng.normal(size=len(accuracy)), 0, 1)
    hits = (1000 * shares).astype(int)
    rows = [
        ImageScore(f"i{i}", None, 40, 50, np.array([[h, 1000 - h], [1000 - h, h]]), attributes=t)
        for i, (h, t) in enumerate(zip(hits, attributes, strict=True))
    ]
    return Scores.collect(name, NAMES, {}, rows)


def stains(count: int, rare: int) -> list[dict]:
    return [{"stain": "histology" if i < rare else "fluorescence", "brightness": float(i % 9)} for i in range(count)]


def by_slice(winner: Scores, live: Scores, **settings: object) -> GateVerdict:
    gates = GateParams(floor=None, baseline=None, champion=None, test_size=None, slice=SliceGate(**settings))
    (verdict,) = judge(gates, Case(QUICK, winner, champion=Champion("v0.2.0", live)))
    return verdict


def test_a_loss_in_one_slice_blocks_although_the_mean_rises() -> None:
    attributes = stains(80, 14)
    before = np.full(80, 0.85)
    after = np.where(np.arange(80) < 14, 0.65, 0.93)
    winner, live = scored("unet", after, attributes, 1), scored("v1", before, attributes, 2)
    main = metric("iou.dataset.macro", NAMES)
    assert main.value(winner.tally) > main.value(live.tally) + 0.01
    whole = GateParams(floor=None, baseline=None, test_size=None)
    assert judge(whole, Case(QUICK, winner, champion=Champion("v0.2.0", live)))[0].verdict == "pass"
    verdict = by_slice(winner, live)
    assert (verdict.verdict, verdict.blocks) == ("fail", True)
    assert verdict.sentence.startswith(
        f"Fail: on the 14 images of stain: histology, unet's test IoU (macro, dataset) is {main.value(winner.tally[:14]):.3f}, "
        f"{-verdict.estimate:.3f} below the champion v0.2.0 ({main.value(live.tally[:14]):.3f})"
    )
    assert "and 0.050 below is allowed" in verdict.sentence
    assert len(verdict.worst) == 3 and all(int(key[1:]) < 14 for key in verdict.worst)
    assert f"worst on {', '.join(verdict.worst)}." in verdict.sentence
    assert verdict.parts[0].name == "stain: histology" and verdict.parts[0].p_value < 0.05
    assert {p.verdict for p in verdict.parts[1:] if p.name == "stain: fluorescence"} == {"pass"}


def test_a_gain_everywhere_passes_and_names_the_nearest_slice() -> None:
    attributes = stains(80, 14)
    winner, live = scored("unet", np.full(80, 0.9), attributes, 1), scored("v1", np.full(80, 0.85), attributes, 2)
    verdict = by_slice(winner, live)
    assert (verdict.verdict, verdict.blocks) == ("pass", False)
    assert f"in any of {len(verdict.parts)} slices" in verdict.sentence and verdict.parts[0].name in verdict.sentence
    assert all(p.low >= -0.05 for p in verdict.parts) and verdict.low == min(p.low for p in verdict.parts)
    compared = compare_slices("iou.dataset.macro", winner, live, QUICK, 10)
    assert {p.name: p.low for p in verdict.parts} == {
        row.slice.name: row.comparison.conservative.low for row in compared
    }


def test_a_small_slice_cannot_tell() -> None:
    attributes = stains(60, 10)
    winner = scored("unet", np.full(60, 0.85), attributes, 1, spread=0.15)
    live = scored("v1", np.full(60, 0.85), attributes, 2, spread=0.15)
    verdict = by_slice(winner, live)
    assert (verdict.verdict, verdict.blocks) == ("cannot tell", True)
    assert "four times out of five), and 0.050 below is allowed" in verdict.sentence
    lax = by_slice(winner, live, unsure="warn")
    assert (lax.verdict, lax.blocks) == ("cannot tell", False) and lax.sentence.endswith(
        "This gate blocks only if a loss is significant."
    )


def test_equal_models_are_rarely_distinguished() -> None:
    """200 pairs that differ by chance only, with eight slices each: at an overall level of 5 %, ten are expected to fail."""
    attributes = [t | {"site": f"{i % 4}x"} for i, t in enumerate(stains(48, 12))]
    quick = EvaluateParams(resamples=200)
    failed = 0
    for seed in range(200):
        accuracy = np.clip(0.85 + 0.1 * np.random.default_rng([seed, 0]).normal(size=48), 0, 1)
        pair = (scored(n, accuracy, attributes, 2 * seed + k, 0.05) for k, n in enumerate("ab"))
        rows = compare_slices("iou.dataset.macro", *pair, quick, min_images=10)
        assert len(rows) >= 8
        failed += min(r.p_value for r in rows) <= 0.05
    assert failed <= 17, failed  # P(X > 17) is 1 % at 5 %; slices overlap, so Holm is conservative


def test_without_champion_slices_or_scores() -> None:
    attributes = stains(30, 12)
    winner = scored("unet", np.full(30, 0.9), attributes)
    gates = GateParams(floor=None, baseline=None, champion=None, test_size=None, slice=SliceGate())
    assert judge(gates, Case(QUICK, winner))[0].sentence == "Pass: no champion yet."
    failed = judge(gates, Case(QUICK, winner, champion=Champion("v1", None, "its classes differ")))[0]
    assert (failed.verdict, "its classes differ" in failed.sentence) == ("cannot tell", True)
    winner_without_attributes = scored("unet", np.full(30, 0.9), [{}] * 30)
    unsliced = by_slice(winner_without_attributes, winner_without_attributes)
    assert unsliced.verdict == "cannot tell"
    assert "no attribute of the test images gives a slice of at least 10 images" in unsliced.sentence
    assert by_slice(winner, winner).verdict == "pass", "a model is not worse than itself"


def test_slices_are_paired_by_key() -> None:
    attributes = stains(40, 12)
    winner = scored("unet", np.linspace(0.5, 0.9, 40), attributes)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(
        winner, keys=[winner.keys[i] for i in order], groups=[None] * 40, tally=winner.tally[order], attributes=[]
    )
    verdict = by_slice(winner, shuffled)
    assert {(p.estimate, p.low, p.high) for p in verdict.parts} == {(0, 0, 0)}


CELLS = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=60)


@given(CELLS, st.integers(1, 5))
def test_every_image_with_a_value_is_in_one_slice_of_the_attribute(cells: list, min_images: int) -> None:
    texts = [None if v is None else str(v)[:1] for v in cells]
    for column in (texts, [v if isinstance(v, float) else None for v in cells]):
        rows = [{} if v is None else {"t": v} for v in column]
        scores = scored("m", np.full(len(rows), 0.9), rows)
        parts = [s for s in cut_slices(scores, 0) if s.attribute == "t"]
        times = np.sum([s.members for s in parts], axis=0) if parts else np.zeros(len(rows))
        assert times.max() <= 1
        assert not times[[v is None for v in column]].any()
        numbers = [v for v in column if isinstance(v, float)]
        if len(set(numbers)) > 6:
            spans = [np.array(column, float)[s.members] for s in parts]
            assert all(a.max() < b.min() for a, b in itertools.pairwise(spans))
            assert len(set(numbers)) < len(numbers) or all(abs(len(s) - len(numbers) / 3) <= 1 for s in spans)
        slices = cut_slices(scores, min_images)
        assert all(min_images <= s.members.sum() < len(rows) for s in slices)


def test_classes_make_slices_of_the_images_that_show_them() -> None:
    counts = [np.array([[900, 0], [0, 100]]), np.array([[990, 10], [0, 0]])]
    rows = [ImageScore(f"i{i}", None, 25, 40, counts[i % 2]) for i in range(12)]
    (part,) = cut_slices(Scores.collect("m", NAMES, {}, rows))
    assert part.name == "with class: cell" and part.members.tolist() == [True, False] * 6


def test_scores_of_slices_are_in_metrics_json(tmp_path: Path, reader: ShardReader) -> None:
    columns = {key: {"scanner": "old" if i < 8 else "new"} for i, key in enumerate(reader.keys)}
    folds = FoldSummary(mean=0.6, sd=0.141421)
    facts = CandidateFacts(attributes=columns, temperature=1.25, weight_bytes=2_500_000, folds=folds)
    evaluate_candidate(make_segmenter(0.1), reader, tmp_path, QUICK, "unet", facts=facts)
    table = json.loads((tmp_path / "metrics.json").read_text())
    old = table["test"]["slices"]["scanner"]["old"]
    scores = read_scores(tmp_path / "per_image.parquet")
    indices = [i for i, key in enumerate(scores.keys) if columns[key]["scanner"] == "old"]
    main = metric("iou.dataset.macro", CLASSES.names)
    interval = on_images(main, scores.tally[indices], [scores.groups[i] for i in indices], 400, 0.95)
    assert old == {
        "images": 8,
        "score": round(interval.estimate, 6),
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
    }
    assert sum(row["images"] for row in table["test"]["slices"]["brightness"].values()) == 20
    assert "size" not in table["test"]["slices"], "all images have one size"
    assert table["val"]["folds"] == {"mean": 0.6, "sd": 0.141421}
    assert table["model"]["megabytes"] == 2.5 and table["val"]["calibration"]["temperature"] == 1.25
    assert scores.attributes[3]["scanner"] == "old" and scores.attributes[3]["group"] == "slide 3"


def test_attributes_of_an_image() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:10] = 90
    labels = np.zeros((20, 30), np.uint8)
    labels[2:4, 2:5], labels[10:14, 10:20], labels[0, :] = 1, 2, IGNORE
    grey = Sample("a", image, labels, group="p1")
    assert image_attributes(grey, True, {"site": "x", "size": "mine"}) == {
        "site": "x",
        "size": "30 x 20",
        "pixels": 600.0,
        "brightness": 22.5,
        "colour": "grey",
        "object size": 23.0,
        "group": "p1",
    }
    purple = image.copy()
    purple[..., 1] //= 2
    assert image_attributes(Sample("b", purple, labels), True)["colour"] == "coloured"
    assert "colour" not in image_attributes(Sample("c", image[:, :, :1], labels), True)
    empty = image_attributes(Sample("d", image, np.zeros((20, 30), np.uint8)), True)
    assert "object size" not in empty and "group" not in empty
    volume = Sample("v", np.zeros((4, 20, 30, 1), np.uint8), np.ones((4, 20, 30), np.uint8))
    assert (
        image_attributes(volume, True)["size"] == "30 x 20 x 4"
        and image_attributes(volume, True)["object size"] == 2400
    )


@given(st.integers(0, 500))
def test_instance_areas_are_those_of_scipys_regions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 0, 0, 1, 2, IGNORE], np.uint8), (9, 11))
    areas = []
    for c in (1, 2):
        numbered, _ = ndimage.label(labels == c, np.ones((3, 3)))
        areas += np.bincount(numbered.ravel())[1:].tolist()
    sample = Sample("a", np.zeros((9, 11, 1), np.uint8), labels)
    assert median_instance_area(sample, True) == (np.median(areas) if areas else None)
    ids = rng.integers(0, 4, labels.shape).astype(np.uint16)
    counted = [n for i in (1, 2, 3) if (n := int(((ids == i) & (labels != IGNORE)).sum()))]
    assert median_instance_area(dataclasses.replace(sample, instances=ids), True) == (
        np.median(counted) if counted else None
    )


def test_columns_of_samples_csv_are_carried_by_the_splits(tmp_path: Path) -> None:
    import pandas as pd

    from segpipe.data.sample_columns import read_extra_columns

    (tmp_path / "samples.csv").write_text(
        "key,group,split,stain,age,path\n1,,test,HE,31,x\n02,p,,,4.5,y\n", "utf-8-sig"
    )
    usable = pd.DataFrame({"key": ["02", "1", "z"], "path": ["b", "a", "c"], "split": "test"})
    frame = usable.join(read_extra_columns(tmp_path / "samples.csv"), on="key")
    frame.to_parquet(tmp_path / "splits.parquet", index=False)
    assert list(frame["path"]) == ["b", "a", "c"]
    assert read_columns(tmp_path / "splits.parquet") == {"02": {"age": 4.5}, "1": {"stain": "HE", "age": 31.0}, "z": {}}
    assert read_columns(tmp_path / "none.parquet") == {}
    bare = usable.join(read_extra_columns(tmp_path / "none.csv"), on="key")
    assert list(bare.columns) == list(usable.columns)


@pytest.mark.parametrize("name", ["iou.dataset.macro", "iou.image.macro", "dice.class.cell"])
def test_any_metric_can_be_compared_on_slices(name: str) -> None:
    attributes = stains(40, 15)
    winner, live = scored("unet", np.full(40, 0.7), attributes, 1), scored("v1", np.full(40, 0.9), attributes, 2)
    assert by_slice(winner, live, metric=name).verdict == "fail"


def test_samples_of_the_fixture_have_attributes() -> None:
    attributes = image_attributes(make_samples(1)[0], True)
    assert set(attributes) == {"size", "pixels", "brightness", "object size"}
