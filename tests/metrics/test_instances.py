"""Matches of objects, panoptic quality and COCO AP against plain counterparts that try every assignment."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.metrics import per_class
from segpipe.metrics.average_precision import SIZES, AveragePrecisionCounter
from segpipe.metrics.instances import (
    THRESHOLDS,
    InstanceMasks,
    challenge_score,
    count_instances,
    match_pairs,
    panoptic_quality,
)
from tests.metrics.coco_oracle import CocoCounter
from tests.metrics.oracles import PlainObject, dense, iou_matrix, most_matches, pairs_of, pixels_of, plain_ap, plain_iou

CLASSES = 3


def blobs(
    rng: np.random.Generator, shape: tuple[int, int], most: int, wobble: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles and the same ones not quite: two stacks of masks (n, H, W) that may overlap and be empty."""
    n = int(rng.integers(0, most + 1))
    truth = np.zeros((n, *shape), np.bool_)
    for mask in truth:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, size + 1, 2)) for size in shape)
        mask[top:bottom, left:right] = True
    prediction = np.roll(truth ^ (truth & (rng.random(truth.shape) < wobble)), rng.integers(0, 2), axis=2)
    keep = rng.random(n) < 0.8
    extra = rng.random((int(rng.integers(0, 2)), *shape)) < 0.2
    return truth, np.concatenate([prediction[keep], extra])


def flat(stack: np.ndarray) -> np.ndarray:
    """Masks that may overlap -> a map of ids, the later above the earlier; ids with gaps."""
    out = np.zeros(stack.shape[1:], np.uint16)
    for place, mask in enumerate(stack):
        out[mask] = 3 * place + 2
    return out


def plain(objects: InstanceMasks) -> list[PlainObject]:
    masks = objects.pixels if objects.overlapping else [objects.pixels == place + 1 for place in range(len(objects))]
    return [
        PlainObject(pixels_of(m), int(c), float(s))
        for m, c, s in zip(masks, objects.classes, objects.scores, strict=True)
    ]


def random_objects(
    rng: np.random.Generator, shape: tuple[int, int], most: int, overlap: bool
) -> tuple[InstanceMasks, InstanceMasks]:
    pair = []
    for masks in blobs(rng, shape, most):
        kinds = rng.integers(0, CLASSES, 3 * len(masks) + 3)
        scores = rng.choice([0.2, 0.5, 0.9, 0.95], len(kinds))  # with ties
        if overlap:
            n = len(masks)
            pair.append(InstanceMasks.from_masks(masks, scores[:n], kinds[:n].tolist()))
        else:
            pair.append(InstanceMasks.from_map(flat(masks), dict(enumerate(scores)), dict(enumerate(kinds.tolist()))))
    return pair[0], pair[1]


@pytest.mark.parametrize("overlap", [True, False])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_matches_are_the_most_there_can_be(overlap: bool, seed: int) -> None:
    truth, prediction = random_objects(np.random.default_rng(seed), (7, 8), 4, overlap)
    there, said = plain(truth), plain(prediction)
    found = count_instances(truth, prediction, CLASSES)
    for place, threshold in enumerate(THRESHOLDS):
        count, total = most_matches(there, said, threshold)
        assert found.tallies[place, 0].sum() == count
        if place == 0:
            assert found.iou_sum.sum() == pytest.approx(total)
    expected = [[plain_iou(t, p) * (t.label == p.label) for p in said] for t in there]
    np.testing.assert_allclose(iou_matrix(truth, prediction), np.array(expected).reshape(len(there), len(said)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_maps_and_masks_of_the_same_objects_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = random_objects(rng, (9, 8), 5, overlap=False)
    stacks = [
        InstanceMasks.from_masks(
            np.array([o.pixels == i + 1 for i in range(len(o))], np.bool_).reshape(-1, *o.shape),
            o.scores,
            o.classes.tolist(),
        )
        for o in maps
    ]
    ignored = rng.random((9, 8)) < 0.3
    found = [count_instances(t, p, CLASSES, ignored) for t in (maps[0], stacks[0]) for p in (maps[1], stacks[1])]
    for other in found[1:]:
        np.testing.assert_array_equal(other.tallies, found[0].tallies)
        np.testing.assert_allclose(other.iou_sum, found[0].iou_sum)
    results = []
    for pair in (maps, stacks):
        counter = AveragePrecisionCounter(CLASSES)
        counter.add(*pair, ignored)
        results.append(counter.result())
    np.testing.assert_equal(vars(results[0]), vars(results[1]))


def test_two_predictions_for_one_object_match_once() -> None:
    """Masks that overlap: each of two predictions fits, only one counts; and the best assignment is not the greedy one."""
    mask = np.ones((1, 4, 4), np.bool_)
    found = count_instances(InstanceMasks.from_masks(mask), InstanceMasks.from_masks(np.repeat(mask, 2, 0)), 1)
    assert found.tallies[0, :, 0].tolist() == [1, 1, 2]
    iou = np.array([[0.9, 0.8], [0.85, 0.0]])
    assert matched(iou).tolist() == [[False, True], [True, False]]
    staircase = np.array([[0.51, 1.0, 0.0], [0.0, 0.51, 1.0], [0.0, 0.0, 0.51]])
    assert matched(staircase).tolist() == np.eye(3, dtype=bool).tolist(), (
        "three poor pairs are more than two perfect ones"
    )


def matched(iou: np.ndarray) -> np.ndarray:
    """A table of IoU -> which pairs match above 0.5, as a table."""
    found = pairs_of(iou)
    return dense(found.only(match_pairs(found, 0.5)), iou.shape) > 0


def test_the_challenge_by_hand() -> None:
    """Two of three nuclei found: one perfectly, one at IoU 0.64; one invented."""
    truth, prediction = np.zeros((2, 30, 30), np.uint16)
    truth[0:5, 0:5], truth[10:20, 10:20], truth[25:30, 25:30] = 1, 2, 3
    prediction[0:5, 0:5], prediction[10:18, 10:18], prediction[0:3, 25:28] = 9, 8, 7
    found = count_instances(InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction), 1)
    assert found.tallies[:, 0, 0].tolist() == [2, 2, 2, *[1] * 7]
    assert challenge_score(found) == pytest.approx((3 * 2 / 4 + 7 * 1 / 5) / 10)
    assert per_class("dice", found.tallies)[0, 0] == pytest.approx(4 / 6)
    quality = panoptic_quality(found)
    assert quality.sq[0] == pytest.approx(0.82) and quality.pq[0] == pytest.approx(0.82 * 4 / 6)


def test_at_the_threshold_itself_nothing_matches() -> None:
    truth, prediction = np.zeros((2, 1, 3), np.uint8)
    truth[0, :2], prediction[0, :1] = 1, 1
    assert count_instances(InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction), 1).tallies[0, 0, 0] == 0


def test_empty_images() -> None:
    nothing, one = InstanceMasks.from_map(np.zeros((5, 5), np.uint8)), InstanceMasks.from_map(np.eye(5, dtype=np.uint8))
    assert np.isnan(challenge_score(count_instances(nothing, nothing, 2)))
    assert np.isnan(panoptic_quality(count_instances(nothing, nothing, 2)).pq).all()
    for pair in ((nothing, one), (one, nothing)):
        found = count_instances(*pair, 2)
        assert challenge_score(found) == 0
        assert panoptic_quality(found).pq[0] == 0 and np.isnan(panoptic_quality(found).pq[1])
    assert len(InstanceMasks.from_masks(np.zeros((3, 4, 4), np.bool_))) == 0


def test_scores_of_images_add_up() -> None:
    rng = np.random.default_rng(3)
    pairs = [random_objects(rng, (9, 9), 5, overlap=False) for _ in range(4)]
    parts = [count_instances(*pair, CLASSES) for pair in pairs]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    np.testing.assert_array_equal(total.tallies, np.sum([p.tallies for p in parts], axis=0))
    merged = panoptic_quality(total)
    np.testing.assert_allclose(merged.pq, merged.sq * merged.rq)


def test_predictions_on_ignored_pixels_count_nowhere() -> None:
    truth, prediction = np.zeros((2, 10, 10), np.uint8)
    truth[:4, :4] = 1
    prediction[:4, :4], prediction[6:, 6:] = 1, 2
    ignored = np.zeros((10, 10), np.bool_)
    ignored[5:] = True
    pair = InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction)
    assert count_instances(*pair, 1).tallies[0, :, 0].tolist() == [1, 1, 2]
    assert count_instances(*pair, 1, ignored).tallies[0, :, 0].tolist() == [1, 1, 1]
    assert np.isnan(challenge_score(count_instances(*pair, 1, np.ones((10, 10), np.bool_))))
    for first, counted in (
        (7, 0),
        (8, 1),
    ):  # of the invented object's four rows, three are ignored, or two: half may be
        ignored[:] = False
        ignored[first:] = True
        assert count_instances(*pair, 1, ignored).tallies[0, 2, 0] == 1 + counted


@pytest.mark.parametrize("overlap", [True, False])
def test_ap_against_the_definition(overlap: bool) -> None:
    """Thirty small data sets with ties of scores, empty images, all sizes and ignored regions; also as faster-coco-eval has it."""
    worst = 0.0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        counter, theirs_too = AveragePrecisionCounter(CLASSES), CocoCounter(CLASSES)
        images = []
        for _ in range(4):
            truth, prediction = random_objects(rng, (44, 45), 5, overlap)
            ignored = np.zeros(truth.shape, np.bool_)
            ignored[: int(rng.integers(0, 12))] = True
            counter.add(truth, prediction, ignored)
            theirs_too.add(truth, prediction, ignored)
            crowd = [PlainObject(pixels_of(ignored), k, crowd=True) for k in range(CLASSES) if ignored.any()]
            images.append((plain(truth) + crowd, plain(prediction)))
        found = counter.result()
        for name, value in vars(theirs_too.result()).items():
            ours, theirs = (list(v.values()) if isinstance(v, dict) else v for v in (getattr(found, name), value))
            np.testing.assert_allclose(ours, theirs, atol=1e-12, err_msg=name)
        spans = {"all": (0, 1e10), **SIZES}
        table = np.array(
            [[[plain_ap(images, k, t, span) for t in THRESHOLDS] for k in range(CLASSES)] for span in spans.values()]
        )  # (sizes, classes, thresholds, 2)
        with np.errstate(invalid="ignore"):
            ours = [found.ap, found.ap50, found.ap75, *found.by_size.values(), found.recall]
            means = [table[0, :, :, 0], table[0, :, 0, 0], table[0, :, 5, 0], *table[1:, :, :, 0], table[0, :, :, 1]]
            theirs = [np.nan if np.isnan(m).all() else np.nanmean(m) for m in means]
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
        np.testing.assert_allclose(found.ap_of_class, table[0, :, :, 0].mean(1), atol=1e-9)
        np.testing.assert_allclose(found.recall_of_class, table[0, :, :, 1].mean(1), atol=1e-9)
        worst = max(worst, float(np.nanmax(np.abs(np.subtract(ours, theirs)), initial=0)))
    assert worst < 1e-9


def contested(rng: np.random.Generator) -> tuple[InstanceMasks, InstanceMasks, np.ndarray]:
    """True objects on each other, each with several predictions that nearly fit, some of them half ignored: who takes whom decides."""
    shape, truth, said = (60, 64), [], []
    for number in range(8):
        if number % 2 == 0:
            (top, left), (height, width) = rng.integers(0, 30, 2), rng.integers(8, 45, 2)
        else:  # nearly the same object again
            top, left = top + rng.integers(0, 5), left + rng.integers(0, 5)
        for stack, count, jitter in ((truth, 1, 1), (said, int(rng.integers(0, 4)), 6)):
            for _ in range(count):
                mask = np.zeros(shape, np.bool_)
                y, x = top + rng.integers(0, jitter), left + rng.integers(0, jitter)
                mask[y : y + height, x : x + width] = True
                stack.append(mask)
    ignored = np.zeros(shape, np.bool_)
    if rng.random() < 0.7:
        ignored[: int(rng.integers(5, 50)), : int(rng.integers(5, 60))] = True
    sides = [np.array(stack, np.bool_).reshape(-1, *shape) for stack in (truth, said)]
    kinds = [(rng.random(len(stack)) < 0.2).astype(int).tolist() for stack in sides]
    return (
        InstanceMasks.from_masks(sides[0], classes=kinds[0]),
        InstanceMasks.from_masks(sides[1], rng.choice([0.3, 0.5, 0.7, 0.9], len(sides[1])), kinds[1]),
        ignored,
    )


def test_ap_where_objects_are_contested_is_that_of_faster_coco_eval() -> None:
    """By size and class, with ties of scores and of IoU, several that fit one, and predictions in part on ignored pixels."""
    for seed in range(12):
        ours, theirs = AveragePrecisionCounter(2), CocoCounter(2)
        for image in range(4):
            drawn = contested(np.random.default_rng((seed, image)))
            for counter in (ours, theirs):
                counter.add(*drawn)
        for name, value in vars(theirs.result()).items():
            pair = [list(v.values()) if isinstance(v, dict) else v for v in (getattr(ours.result(), name), value)]
            np.testing.assert_allclose(*pair, atol=1e-12, err_msg=f"{name}, seed {seed}")


def test_ap_of_nothing_does_not_exist() -> None:
    assert np.isnan(AveragePrecisionCounter(2).result().ap)
    nothing, one = InstanceMasks.from_map(np.zeros((5, 5), np.uint8)), InstanceMasks.from_map(np.eye(5, dtype=np.uint8))
    for pair, ap in (((nothing, nothing), np.nan), ((nothing, one), np.nan), ((one, nothing), 0.0), ((one, one), 1.0)):
        counter = AveragePrecisionCounter(2)
        counter.add(*pair)
        found = counter.result()
        np.testing.assert_equal([found.ap, found.ap50, found.by_size["small"], found.recall], [ap] * 4)
        assert np.isnan(found.ap_of_class[1])


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint16, (6, 7), elements=st.integers(0, 4)))
def test_a_perfect_answer_has_the_full_score(labels: np.ndarray) -> None:
    objects = InstanceMasks.from_map(labels)
    found = count_instances(objects, objects, 1)
    counter = AveragePrecisionCounter(1)
    counter.add(objects, objects)
    expected = 1.0 if labels.any() else np.nan
    np.testing.assert_equal(
        [challenge_score(found), panoptic_quality(found).pq[0], counter.result().ap], [expected] * 3
    )


def test_volumes_have_objects_too() -> None:
    truth = np.zeros((3, 4, 5), np.uint16)
    truth[:2, :2], truth[2, 3] = 5, 70
    found = count_instances(
        InstanceMasks.from_map(truth), InstanceMasks.from_masks(np.stack([truth == 5, truth == 70])), 1
    )
    assert found.tallies[-1, :, 0].tolist() == [2, 2, 2]
    counter = AveragePrecisionCounter(1)
    counter.add(InstanceMasks.from_map(truth), InstanceMasks.from_map(truth))
    assert counter.result().ap == 1


def test_what_does_not_fit_is_refused() -> None:
    labels = np.eye(3, dtype=np.uint16)
    with pytest.raises(ValueError, match=r"objects \[1\] have no score"):
        InstanceMasks.from_map(labels, scores={2: 0.5})
    with pytest.raises(ValueError, match="uint8 or uint16"):
        InstanceMasks.from_map(labels.astype(np.int64))
    with pytest.raises(ValueError, match="1 masks, 2 scores"):
        InstanceMasks.from_masks(labels[None] > 0, [0.5, 0.5])
    with pytest.raises(ValueError, match="shape"):
        count_instances(InstanceMasks.from_map(labels), InstanceMasks.from_map(labels[:2]), 1)


def test_many_objects_cost_what_their_pixels_do() -> None:
    """22,500 objects of 2 x 2 pixels, every second one found: a table of all pairs would take 2 GB."""
    labels = np.kron(np.arange(1, 22_501).reshape(150, 150), np.pad(np.ones((2, 2), int), 1)).astype(np.uint16)
    truth, prediction = (
        InstanceMasks.from_map(labels),
        InstanceMasks.from_map(np.where(labels % 2, labels, 0).astype(np.uint16)),
    )
    counter = AveragePrecisionCounter(1)
    tracemalloc.start()
    counter.add(truth, prediction)
    score = count_instances(truth, prediction, 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 << 20
    assert score.tallies[:, :, 0].tolist() == [[11_250, 22_500, 11_250]] * 10
    assert counter.result().ap == pytest.approx(51 / 101), "precision 1 up to recall 0.5"
