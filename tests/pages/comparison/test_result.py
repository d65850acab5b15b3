"""Comparing two models: the images that are compared, the verdict, and the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segpipe.config import EvaluateParams, Params
from segpipe.errors import DataError, MissingError
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.scores_file import read_scores
from segpipe.metrics import metric
from segpipe.pages.comparison import page as comparison_page
from segpipe.pages.comparison.page import write_comparison
from segpipe.pages.comparison.result import as_json, compare_models, verdict_sentence
from segpipe.pages.comparison.sides import ComparisonSide, SharedImages, load_side, match_images
from segpipe.samples import ClassTable
from tests.pages.components.test_curves import write_curve
from tests.pages.html_page import Page
from tests.worlds.evaluated_workspace import make_samples, make_segmenter
from tests.worlds.readers import MemoryReader


@pytest.fixture
def root(workspace: Path, shards: Path) -> Path:
    """A workspace with a selection, shards and curves."""
    (workspace / "selection.json").write_text(json.dumps({"winner": "unet", "ranking": [{"candidate": "unet"}]}))
    shutil.copytree(shards, workspace / "artifacts" / "shards")
    for name in ("unet", "deeplab"):
        write_curve(workspace, name, "val/iou_macro", [0.2, 0.5, 0.7])
    return workspace


def sides(root: Path) -> tuple[ComparisonSide, ComparisonSide]:
    return load_side(root, ".:deeplab"), load_side(root, ".")


def test_the_winner_is_loaded_if_no_candidate_is_named(root: Path) -> None:
    before, after = sides(root)
    assert (before.candidate, before.name) == ("deeplab", "workspace deeplab")
    assert (after.candidate, after.name) == ("unet", "workspace")


def test_missing_scores_are_reported(root: Path) -> None:
    with pytest.raises(
        MissingError, match=r"the scores of nobody are missing \(found candidates unet, .*Fix: dvc repro"
    ):
        load_side(root, ".:nobody")
    (root / "selection.json").write_text(json.dumps({"winner": None}))
    with pytest.raises(MissingError, match=r"has no winner .*name a candidate: \.:CANDIDATE"):
        load_side(root, ".")


@pytest.mark.parametrize(
    ("engines", "note"),
    [
        (("onnxruntime", "onnxruntime"), ""),
        ((None, None), ""),
        (("torch", "onnxruntime"), "Their engines differ (torch; onnxruntime): differences below 0.0001"),
        ((None, "onnxruntime"), "(one that an earlier version of segpipe did not record; onnxruntime)"),
        (("kmeans", "onnxruntime"), ""),
    ],
)
def test_different_engines_are_named(root: Path, engines: tuple[str | None, str | None], note: str) -> None:
    before, after = (
        replace(side, metrics=side.metrics.model_copy(update={"engine": engine}))
        for side, engine in zip(sides(root), engines, strict=True)
    )
    sentence = match_images(before, after).sentence
    assert note in sentence and ("engine" in sentence) == bool(note)


def test_the_difference_is_that_of_the_scores(root: Path, params: Params) -> None:
    before, after = sides(root)
    common = match_images(before, after)
    assert common.complete and "same 20 test images (matched by name and labelled pixels)" in common.sentence
    result = compare_models(common.before, common.after, params.evaluate)
    main = metric("iou.dataset.macro", after.scores.classes)
    assert result.comparison.difference.estimate == pytest.approx(
        main.value(after.scores.tally) - main.value(before.scores.tally)
    )
    assert result.verdict == "better" and "workspace is better than workspace deeplab" in verdict_sentence(
        result, before.name, after.name
    )
    assert result.classes is not None
    for row in result.classes.groups[0][1]:
        value = metric(f"iou.class.{row.name}", after.scores.classes)
        assert row.ours == value.value(after.scores.tally) and row.theirs == value.value(before.scores.tally)
        assert row.low <= row.value <= row.high and 0 < row.p <= 1
    content = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert content["verdict"] == "better" and [c["name"] for c in content["classes"]] == [
        "background",
        "cell",
        "nucleus",
    ]
    reverse = compare_models(common.after, common.before, params.evaluate)
    assert reverse.verdict == "worse" and "at least" in verdict_sentence(reverse, "a", "b")


def test_equal_models_are_no_different_and_close_ones_cannot_be_told(root: Path, params: Params) -> None:
    _, after = sides(root)
    same = compare_models(after.scores, after.scores, params.evaluate)
    assert same.verdict == "no different" and "give the same answers on every image" in verdict_sentence(same, "a", "b")
    samples, out = make_samples(20, groups=8), root / "evaluation" / "twin"
    evaluate_candidate(make_segmenter(0.0501, "twin"), MemoryReader(samples), out, params.evaluate, "twin")
    twin = read_scores(out / "per_image.parquet")
    close = compare_models(after.scores, twin, params.evaluate)
    assert close.verdict in ("cannot tell", "no different")
    one = np.array([0])
    single = compare_models(after.scores.at(one), load_side(root, ".:kmeans").scores.at(one), params.evaluate)
    assert "a single image cannot show" in verdict_sentence(single, "a", "b")


def part_of(side: ComparisonSide, indices: list[int], hashes: dict[str, str] | None) -> ComparisonSide:
    return ComparisonSide(
        side.argument,
        side.name,
        side.revision,
        side.candidate,
        side.scores.at(np.array(indices)),
        side.metrics,
        hashes,
        "",
    )


def test_only_shared_images_are_compared(root: Path, params: Params) -> None:
    """Images are matched by key and content; the sentence says how many are left out."""
    before, after = sides(root)
    keys = after.scores.keys
    hashes = {key: f"image {key}" for key in keys}
    first = part_of(before, list(range(15)), hashes)
    second = part_of(after, list(range(19, 4, -1)), hashes | {keys[7]: "relabelled"})
    common = match_images(first, second)
    assert sorted(common.after.keys) == [k for k in keys[5:15] if k != keys[7]] == sorted(common.before.keys)
    assert common.before.keys == common.after.keys
    assert (common.left_out, common.changed, common.by_content) == ((5, 5), 1, True)
    assert "Only the 9 test images that both share (matched by the hashes of the files) are compared" in common.sentence
    assert (
        "5 that only the first was tested on, 5 that only the second was tested on, 1 whose image or label has changed"
        in common.sentence
    )
    index = {key: i for i, key in enumerate(before.scores.keys)}
    expected = before.scores.tally[[index[key] for key in common.before.keys]]
    np.testing.assert_array_equal(common.before.tally, expected)
    with pytest.raises(DataError, match=r"share no test image .*5 and 5 images, 0 with the same name"):
        match_images(part_of(before, list(range(5)), None), part_of(after, list(range(5, 10)), None))
    with pytest.raises(DataError, match="share no test image"):
        match_images(first, part_of(after, [0, 1], dict.fromkeys(keys, "new")))


def test_relabelled_images_are_detected_without_a_manifest(root: Path) -> None:
    before, after = sides(root)
    after.scores.tally[3, 1, 0] += 1
    assert match_images(before, after).changed == 1


def test_hashes_come_from_the_manifest(root: Path) -> None:
    keys = load_side(root, ".").scores.keys
    pd.DataFrame({"key": keys, "sha256": keys, "mask_sha256": keys}).to_parquet(root / "artifacts" / "manifest.parquet")
    common = match_images(*sides(root))
    assert common.complete and "by the hashes of the files" in common.sentence


def test_models_with_different_classes_cannot_be_compared(root: Path, params: Params) -> None:
    classes = ClassTable.from_names(["background", "cell", "other"])
    evaluate_candidate(
        make_segmenter(0.1, "odd", classes),
        MemoryReader(make_samples(3)),
        root / "evaluation" / "odd",
        params.evaluate,
        "odd",
    )
    with pytest.raises(DataError, match="models with different classes cannot be compared"):
        match_images(load_side(root, ".:odd"), load_side(root, "."))


def write_page(root: Path, params: EvaluateParams) -> tuple[Page, SharedImages]:
    before, after = sides(root)
    common = match_images(before, after)
    out = root / "reports" / "compare.html"
    write_comparison(root, before, after, common, compare_models(common.before, common.after, params), params, out)
    return Page(out), common


def test_the_page_shows_everything(root: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"unet": 0.05, "deeplab": 0.1}
    monkeypatch.setattr(
        comparison_page, "_load_segmenter", lambda side, folder: make_segmenter(errors[side.candidate], side.candidate)
    )
    page, common = write_page(root, params.evaluate)
    sections = {
        "verdict",
        "changed",
        "scores",
        "classes",
        "slices",
        "confusion",
        "training",
        "calibration",
        "gallery",
        "lineage",
    }
    assert sections <= page.ids and {h[1:] for h in page.hrefs if h.startswith("#")} <= page.ids
    assert common.sentence in page.text and "workspace is better than workspace deeplab" in page.text
    assert "workspace is furthest ahead of workspace deeplab" in page.text and page.raw.count('class="shot"') >= 2
    assert "segpipe compare .:deeplab . --json" in page.text
    assert {a.split(":")[0] for a in page.addresses if not a.startswith("#")} == {"data"}
    assert (root / "reports" / "compare.html").stat().st_size < 8e6


def test_without_models_the_page_says_why_there_are_no_pictures(root: Path, params: Params) -> None:
    page, _ = write_page(root, params.evaluate)
    assert "There are no pictures: workspace deeplab: the model deeplab is missing" in page.text
    assert 'class="shot"' not in page.raw
