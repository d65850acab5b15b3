"""Planted label errors are ranked first; if model and labels agree, nothing is suspected."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.curation.suspects import (
    BORDER_PIXELS,
    Doubts,
    Thresholds,
    away_from_borders,
    choose_candidate,
    find_doubts,
    find_regions,
    find_suspects,
)
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import ConfigError, MissingError
from segpipe.inference.engines.engine import softmax
from segpipe.inference.out_of_fold import OutOfFoldSegmenter
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.classical import KMeans, KMeansConfig
from segpipe.pages.suspects import COLUMNS, SuspectList, rank_suspects, render_suspects, to_csv, write_suspects
from segpipe.samples import IGNORE, ClassTable, Sample
from tests.worlds.bundles import toy_selection

CLASSES = ClassTable.from_names(["background", "cell", "nucleus"])
CENTRES = [(24, 24), (24, 72), (72, 24), (72, 72)]


def draw_cells(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of four cells with a nucleus, (96, 96, 3), and its labels; light and dyes depend on the seed."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((96, 96), np.uint8)
    rows, columns = np.mgrid[:96, :96]
    for y, x in CENTRES:
        distance = np.hypot(rows - y - rng.integers(-3, 4), columns - x - rng.integers(-3, 4))
        labels[distance < rng.integers(14, 18)] = 1
        labels[distance < rng.integers(7, 10)] = 2
    colors = np.array([(235, 230, 235), (215, 150, 190), (110, 60, 140)]) + rng.integers(-8, 9, 3)
    return (colors[labels] + rng.normal(0, 6, (96, 96, 3))).clip(0, 255).astype(np.uint8), labels


def corrupt(labels: np.ndarray, kind: str) -> np.ndarray:
    """Return the labels with one error."""
    wrong = labels.copy()
    if kind == "missing cell":
        wrong[:48, :48] = 0
    elif kind == "swapped class":
        wrong[:48, :48][labels[:48, :48] == 2] = 1
        wrong[48:, 48:][labels[48:, 48:] == 1] = 2
    elif kind == "shifted mask":
        wrong = np.roll(labels, (9, 6), (0, 1))
    else:
        wrong[10:30, 40:56] = 2  # where there is no nucleus
    return wrong


KINDS = ("missing cell", "swapped class", "shifted mask", "invented nucleus")


@pytest.fixture(scope="module")
def kmeans() -> Segmenter:
    """A k-means model, fitted on twelve correct images."""
    window = Normalisation(low=(0, 0, 0), high=(255, 255, 255), mean=(0.5,) * 3, std=(0.25,) * 3)
    samples = [Sample(str(n), *draw_cells(n)) for n in range(12)]
    engine = KMeans.fit(samples, window.apply, 3, 0, KMeansConfig(clusters=12, smoothing=1.0))
    return Segmenter(
        SegmenterSpec(candidate="kmeans", family="kmeans", classes=CLASSES, normalisation=window, stride=1), engine
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of val and test with forty images; eight of them (bad-N) have a planted error."""
    folder = tmp_path_factory.mktemp("planted") / "artifacts" / "shards"
    samples = []
    for n in range(40):
        image, labels = draw_cells(100 + n)
        bad = n % 5 == 0
        samples.append(
            Sample(f"{'bad' if bad else 'good'}-{n}", image, corrupt(labels, KINDS[n // 5 % 4]) if bad else labels)
        )
    write_shards(folder, "val", samples[:20], 3)
    write_shards(folder, "test", samples[20:], 3)
    return folder


def readers(folder: Path) -> list[ShardReader]:
    return [ShardReader(folder, "val"), ShardReader(folder, "test")]


def test_planted_errors_are_ranked_first(kmeans: Segmenter, planted: Path) -> None:
    every, sheets = rank_suspects(find_suspects(kmeans, readers(planted)), CLASSES, 5)
    assert {suspect.key for suspect in every[:8]} == {f"bad-{n}" for n in range(0, 40, 5)}
    assert every[7].score > 5 * max([s.score for s in every[8:]], default=0)
    assert [sheet.suspect for sheet in sheets] == every[:5]
    assert {s.split for s in every[:8]} == {"val", "test"}
    assert all(s.score >= sum(region.mass for region in s.regions) - 1e-3 for s in every)
    assert all(s.score == pytest.approx(sum(r.mass for r in s.regions)) for s in every if s.places == len(s.regions))


def test_the_regions_of_a_planted_error(kmeans: Segmenter, planted: Path) -> None:
    suspects = {case.suspect.key: case.suspect for case in find_suspects(kmeans, readers(planted))}
    missing, swapped = suspects["bad-0"].regions, suspects["bad-5"].regions
    assert {(r.given, r.suggested) for r in missing[:2]} == {("background", "cell"), ("background", "nucleus")}
    assert missing[0].x + missing[0].width <= 48
    assert missing[0].y + missing[0].height <= 48
    assert {(r.given, r.suggested) for r in swapped[:2]} == {("cell", "nucleus"), ("nucleus", "cell")}
    assert suspects["bad-15"].regions[0].given == "nucleus"


class Oracle:
    """An engine that confidently predicts the labels that it holds; the first pixel of an image is their index."""

    name = "oracle"

    def __init__(self, labels: list[np.ndarray]) -> None:
        self.labels = labels

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        labels = self.labels[int(batch[0, 0, 0, 0])]
        return 6 * (labels[None, None] == np.arange(3)[None, :, None, None]).astype(np.float32)


def oracle_segmenter(labels: list[np.ndarray]) -> Segmenter:
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    return Segmenter(
        SegmenterSpec(candidate="o", family="unet", classes=CLASSES, normalisation=plain, stride=1), Oracle(labels)
    )


def oracle_shards(folder: Path, labels: list[np.ndarray]) -> list[ShardReader]:
    images = [np.full((*plane.shape, 1), index, np.uint8) for index, plane in enumerate(labels)]
    write_shards(folder, "test", [Sample(f"{i}", m, p) for i, (m, p) in enumerate(zip(images, labels, strict=True))], 3)
    return [ShardReader(folder, "test")]


def test_a_model_that_agrees_suspects_nothing(tmp_path: Path) -> None:
    labels = [draw_cells(n)[1] for n in range(3)]
    labels[0][:5] = IGNORE
    assert list(find_suspects(oracle_segmenter(labels), oracle_shards(tmp_path, labels))) == []
    page = render_suspects(SuspectList(candidate="o", images=3, found=0, suspects=[]), [], CLASSES)
    assert "nowhere confident" in page
    assert "localStorage" not in page


def test_borders_are_not_suspected(tmp_path: Path) -> None:
    truth = [draw_cells(n)[1] for n in range(3)]
    given = [np.roll(plane, BORDER_PIXELS, 0) for plane in truth]
    assert list(find_suspects(oracle_segmenter(truth), oracle_shards(tmp_path, given))) == []
    given = [np.roll(plane, 2 * BORDER_PIXELS + 2, 0) for plane in truth]
    assert len(list(find_suspects(oracle_segmenter(truth), oracle_shards(tmp_path, given)))) == 3


SMALL_ARRAYS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2, IGNORE])),
        hnp.arrays(np.float32, (3, *shape), elements=st.floats(-4, 4, width=32)),
    )
)


@given(SMALL_ARRAYS)
def test_scores_against_brute_force(arrays: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = arrays
    probabilities = softmax(scores)
    height, width = labels.shape
    inside = {
        (y, x)
        for y in range(height)
        for x in range(width)
        if len(
            np.unique(
                labels[
                    max(0, y - BORDER_PIXELS) : y + BORDER_PIXELS + 1, max(0, x - BORDER_PIXELS) : x + BORDER_PIXELS + 1
                ]
            )
        )
        == 1
    }
    assert {(int(y), int(x)) for y, x in np.argwhere(away_from_borders(labels))} == inside
    means = []
    for index in range(3):
        of_class = [float(probabilities[index, y, x]) for y, x in inside if labels[y, x] == index]
        means.append(np.mean(of_class) if of_class else np.inf)
    thresholds = Thresholds(3)
    thresholds.add(labels, probabilities)
    assert thresholds.values == pytest.approx(means)
    limits = np.array([0.4, 0.5, 0.6])
    doubts = find_doubts(labels, probabilities, limits)
    weights = np.zeros(labels.shape)
    for y, x in inside:
        if labels[y, x] == IGNORE:
            continue
        best = int(np.argmax(probabilities[:, y, x]))
        if best != labels[y, x] and probabilities[best, y, x] >= limits[best]:
            weights[y, x] = probabilities[best, y, x] - probabilities[labels[y, x], y, x]
    np.testing.assert_allclose(doubts.weights, weights, atol=1e-6)
    regions = find_regions(labels, doubts, CLASSES.names)
    masses = sorted(_flood(weights, labels, doubts.suggested), reverse=True)
    assert [r.mass for r in regions] == pytest.approx(masses, abs=2e-3)
    assert sum(r.pixels for r in regions) == (weights > 0).sum()


def _flood(weights: np.ndarray, labels: np.ndarray, suggested: np.ndarray) -> Iterator[float]:
    """Yield the masses of the connected regions, by flood fill."""
    remaining = {(int(y), int(x)) for y, x in np.argwhere(weights > 0)}
    while remaining:
        first = remaining.pop()
        pair, stack, mass = (labels[first], suggested[first]), [first], 0.0
        while stack:
            y, x = stack.pop()
            mass += float(weights[y, x])
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in remaining and (labels[near], suggested[near]) == pair:
                    remaining.remove(near)
                    stack.append(near)
        yield mass


def test_regions_of_a_volume_have_a_slice() -> None:
    labels = np.zeros((9, 12, 14), np.uint8)
    weights = np.zeros(labels.shape, np.float32)
    weights[2:6, 3:5, 4:9], weights[4, 3:7, 4:9] = 0.5, 0.5
    regions = find_regions(labels, Doubts((weights > 0).astype(np.uint8), weights, labels.size), CLASSES.names)
    assert [(r.slice, r.x, r.y, r.width, r.height, r.pixels) for r in regions] == [(4, 4, 3, 5, 4, 50)]
    assert regions[0].mass == 25


def test_a_class_without_labels_is_never_suggested() -> None:
    labels = np.zeros((20, 20), np.uint8)
    scores = np.zeros((3, 20, 20), np.float32)
    scores[2, 5:15, 5:15] = 9
    thresholds = Thresholds(3)
    thresholds.add(labels, softmax(scores))
    assert np.isinf(thresholds.values[1:]).all()
    assert not find_doubts(labels, softmax(scores), thresholds.values).weights.any()


@pytest.fixture
def workspace(kmeans: Segmenter, planted: Path, tmp_path: Path) -> Path:
    (tmp_path / "artifacts").symlink_to(planted.parent)
    kmeans.spec.write(tmp_path / "models" / "kmeans")
    kmeans.engine.save(tmp_path / "models" / "kmeans" / "weights.safetensors")
    return tmp_path


def test_page_table_and_json_agree(workspace: Path) -> None:
    result = write_suspects(workspace, None, 6, workspace / "reports" / "suspects.html")
    assert (result.candidate, result.images, len(result.suspects)) == ("kmeans", 40, 6)
    rows = list(csv.DictReader(io.StringIO((workspace / "reports" / "suspects.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == result.found >= 8
    for number, (row, suspect) in enumerate(zip(rows, result.suspects, strict=False), start=1):
        assert (int(row["rank"]), row["key"], float(row["score"])) == (number, suspect.key, suspect.score)
        assert (row["given"], row["suggested"]) == (suspect.regions[0].given, suspect.regions[0].suggested)
    page = (workspace / "reports" / "suspects.html").read_text()
    assert re.findall(r'data-key="([^"]+)"', page) == [s.key for s in result.suspects]
    assert not re.search(r"https?://|src=\"(?!data:)", page)
    again = write_suspects(workspace, "kmeans", 6, workspace / "again.html")
    assert again == result
    assert (workspace / "again.html").read_text() == page


def test_names_are_escaped(kmeans: Segmenter, tmp_path: Path) -> None:
    image, labels = draw_cells(0)
    write_shards(tmp_path, "test", [Sample('<b>"x",y', image, corrupt(labels, "missing cell"))], 3)
    every, sheets = rank_suspects(find_suspects(kmeans, [ShardReader(tmp_path, "test")]), CLASSES, 5)
    page = render_suspects(SuspectList(candidate="<i>", images=1, found=1, suspects=every), sheets, CLASSES)
    assert "<b>&#34;" not in page.replace("<b>&lt;b&gt;&#34;", "")
    assert "<i>" not in re.sub(r"<script>.*</script>", "", page, flags=re.S)
    assert next(csv.DictReader(io.StringIO(to_csv(every))))["key"] == '<b>"x",y'


def test_a_large_image_is_shown_around_its_suspicious_region(tmp_path: Path) -> None:
    truth = np.zeros((700, 900), np.uint8)
    truth[500:560, 700:760] = 1
    given = np.zeros_like(truth)
    labels = [truth, np.tile(np.array([[1] * 50 + [0] * 50], np.uint8), (100, 1))]
    folder = oracle_shards(tmp_path, [given, labels[1]])
    _, sheets = rank_suspects(find_suspects(oracle_segmenter(labels), folder), CLASSES, 1)
    assert "part of 900 × 700" in sheets[0].part
    assert (sheets[0].width, sheets[0].height) == (256, 256)
    region = sheets[0].suspect.regions[0]
    assert (region.x, region.y, region.width, region.height, region.pixels) == (700, 500, 60, 60, 3600)


def test_the_choice_of_the_candidate(tmp_path: Path, kmeans: Segmenter) -> None:
    with pytest.raises(MissingError, match="segpipe run"):
        choose_candidate(tmp_path, None)
    kmeans.spec.write(tmp_path / "models" / "a")
    assert choose_candidate(tmp_path, None) == "a"
    with pytest.raises(MissingError, match="found b"):
        choose_candidate(tmp_path, "b")
    kmeans.spec.write(tmp_path / "models" / "b")
    with pytest.raises(ConfigError, match="--candidate"):
        choose_candidate(tmp_path, None)
    toy_selection(winner="b").write(tmp_path / "selection.json")
    assert choose_candidate(tmp_path, None) == "b"
    assert choose_candidate(tmp_path, "a") == "a"


@pytest.mark.parametrize(("edge", "count"), [(2, 0), (4, 1)])
def test_tiny_regions_are_noise(tmp_path: Path, edge: int, count: int) -> None:
    truth = draw_cells(0)[1]
    truth[:48, :48] = 0
    given = truth.copy()
    truth[10 : 10 + edge, 10 : 10 + edge] = 1
    assert len(list(find_suspects(oracle_segmenter([truth]), oracle_shards(tmp_path, [given])))) == count


@pytest.fixture
def folded(tmp_path: Path) -> OutOfFoldSegmenter:
    """A workspace with a model of two members that are overfit to the labels of their training images, with their errors.

    Three errors are planted: in train, val and test.
    """
    truth = [draw_cells(n)[1] for n in range(9)]
    given = [corrupt(plane, "missing cell") if n in (1, 5, 7) else plane for n, plane in enumerate(truth)]
    images = [np.full((*plane.shape, 1), n, np.uint8) for n, plane in enumerate(truth)]
    samples = [Sample(f"im{n}", images[n], given[n]) for n in range(9)]
    for split, part in (("train", samples[:4]), ("val", samples[4:6]), ("test", samples[6:])):
        write_shards(tmp_path / "artifacts" / "shards", split, part, 3)
    folds = {f"im{n}": n % 2 for n in range(6)}
    unseen = [{n for n in range(9) if folds.get(f"im{n}", fold) == fold} for fold in range(2)]
    members = [Oracle([truth[n] if n in unseen[fold] else given[n] for n in range(9)]) for fold in range(2)]
    spec = oracle_segmenter(truth).spec.model_copy(update={"members": 2})
    spec.write(tmp_path / "models" / "o")
    return OutOfFoldSegmenter(spec, Oracle([*given[:6], *truth[6:]]), members, folds)


def test_an_ensemble_judges_train_by_members_that_were_not_trained_on_it(
    folded: OutOfFoldSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.inference.trained_model.load_trained", lambda _: folded)
    result = write_suspects(tmp_path, None, 5, tmp_path / "suspects.html")
    assert (result.images, result.out_of_fold, result.found) == (9, 6, 3)
    assert {(s.key, s.split, s.fold) for s in result.suspects} == {
        ("im1", "train", 1),
        ("im5", "val", 1),
        ("im7", "test", None),
    }
    page = (tmp_path / "suspects.html").read_text()
    assert "6 of train and val, each judged by the member" in page and page.count("by the member without fold 1") == 2
    rows = {row["key"]: row["fold"] for row in csv.DictReader(io.StringIO((tmp_path / "suspects.csv").read_text()))}
    assert rows == {"im1": "1", "im5": "1", "im7": ""}
    overfit = Segmenter(folded.spec, folded.engine)
    splits = [ShardReader(tmp_path / "artifacts" / "shards", split) for split in ("train", "val", "test")]
    assert [case.suspect.key for case in find_suspects(overfit, splits)] == ["im7"], (
        "a model does not suspect what it has learned"
    )
