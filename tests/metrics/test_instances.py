"""Matches of instances, panoptic quality and COCO AP against plain counterparts that try every assignment."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
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
from tests.metrics.oracles import (
    PlainInstance,
    dense,
    iou_matrix,
    most_matches,
    pairs_of,
    pixels_of,
    plain_ap,
    plain_iou,
)
from tests.worlds.property_tests import examples

CLASSES = 3


def blobs(
    rng: np.random.Generator, shape: tuple[int, int], max_count: int, wobble: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Return rectangles and nearly the same rectangles: two stacks of masks (n, H, W) that may overlap and be empty."""
    n = int(rng.integers(0, max_count + 1))
    truth = np.zeros((n, *shape), np.bool_)
    for mask in truth:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, size + 1, 2)) for size in shape)
        mask[top:bottom, left:right] = True
    prediction = np.roll(truth ^ (truth & (rng.random(truth.shape) < wobble)), rng.integers(0, 2), axis=2)
    keep = rng.random(n) < 0.8
    extra = rng.random((int(rng.integers(0, 2)), *shape)) < 0.2
    return truth, np.concatenate([prediction[keep], extra])


def flat(stack: np.ndarray) -> np.ndarray:
    """Convert masks that may overlap to a map of ids with gaps; later masks cover earlier ones."""
    out = np.zeros(stack.shape[1:], np.uint16)
    for index, mask in enumerate(stack):
        out[mask] = 3 * index + 2
    return out


def plain(instances: InstanceMasks) -> list[PlainInstance]:
    masks = instances.pixels if instances.overlapping else [instances.pixels == i + 1 for i in range(len(instances))]
    return [
        PlainInstance(pixels_of(m), int(c), float(s))
        for m, c, s in zip(masks, instances.classes, instances.scores, strict=True)
    ]


def random_instances(
    rng: np.random.Generator, shape: tuple[int, int], max_count: int, overlap: bool
) -> tuple[InstanceMasks, InstanceMasks]:
    pair = []
    for masks in blobs(rng, shape, max_count):
        kinds = rng.integers(0, CLASSES, 3 * len(masks) + 3)
        scores = rng.choice([0.2, 0.5, 0.9, 0.95], len(kinds))  # with ties
        if overlap:
            n = len(masks)
            pair.append(InstanceMasks.from_masks(masks, scores[:n], kinds[:n].tolist()))
        else:
            pair.append(InstanceMasks.from_map(flat(masks), dict(enumerate(scores)), dict(enumerate(kinds.tolist()))))
    return pair[0], pair[1]


@pytest.mark.parametrize("overlap", [True, False])
@examples(60)
@given(seed=st.integers(0, 10**6))
def test_there_is_no_assignment_with_more_matches(overlap: bool, seed: int) -> None:
    truth, prediction = random_instances(np.random.default_rng(seed), (7, 8), 4, overlap)
    plain_truth, plain_prediction = plain(truth), plain(prediction)
    counts = count_instances(truth, prediction, CLASSES)
    for index, threshold in enumerate(THRESHOLDS):
        count, total = most_matches(plain_truth, plain_prediction, threshold)
        assert counts.tallies[index, 0].sum() == count
        if index == 0:
            assert counts.iou_sum.sum() == pytest.approx(total)
    expected = [[plain_iou(t, p) * (t.label == p.label) for p in plain_prediction] for t in plain_truth]
    table = np.array(expected).reshape(len(plain_truth), len(plain_prediction))
    np.testing.assert_allclose(iou_matrix(truth, prediction), table)


@examples(40)
@given(seed=st.integers(0, 10**6))
def test_maps_and_masks_of_the_same_instances_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = random_instances(rng, (9, 8), 5, overlap=False)
    stacks = [
        InstanceMasks.from_masks(
            np.array([o.pixels == i + 1 for i in range(len(o))], np.bool_).reshape(-1, *o.shape),
            o.scores,
            o.classes.tolist(),
        )
        for o in maps
    ]
    ignored = rng.random((9, 8)) < 0.3
    results_of_pairs = [
        count_instances(t, p, CLASSES, ignored) for t in (maps[0], stacks[0]) for p in (maps[1], stacks[1])
    ]
    for other in results_of_pairs[1:]:
        np.testing.assert_array_equal(other.tallies, results_of_pairs[0].tallies)
        np.testing.assert_allclose(other.iou_sum, results_of_pairs[0].iou_sum)
    results = []
    for pair in (maps, stacks):
        counter = AveragePrecisionCounter(CLASSES)
        counter.add(*pair, ignored)
        results.append(counter.result())
    np.testing.assert_equal(vars(results[0]), vars(results[1]))


def test_two_predictions_of_one_instance_match_once() -> None:
    """If each of two overlapping predictions fits, only one counts; and the best assignment is not the greedy one."""
    mask = np.ones((1, 4, 4), np.bool_)
    counts = count_instances(InstanceMasks.from_masks(mask), InstanceMasks.from_masks(np.repeat(mask, 2, 0)), 1)
    assert counts.tallies[0, :, 0].tolist() == [1, 1, 2]
    iou = np.array([[0.9, 0.8], [0.85, 0.0]])
    assert matched(iou).tolist() == [[False, True], [True, False]]
    staircase = np.array([[0.51, 1.0, 0.0], [0.0, 0.51, 1.0], [0.0, 0.0, 0.51]])
    assert matched(staircase).tolist() == np.eye(3, dtype=bool).tolist(), (
        "three poor matches count more than two perfect ones"
    )


def matched(iou: np.ndarray) -> np.ndarray:
    """Return which pairs of a table of IoU match above 0.5, as a table."""
    pairs = pairs_of(iou)
    return dense(pairs.only(match_pairs(pairs, 0.5)), iou.shape) > 0


def test_the_challenge_by_hand() -> None:
    """Two of three nuclei are found, one perfectly and one at IoU 0.64; one prediction is a false positive."""
    truth, prediction = np.zeros((2, 30, 30), np.uint16)
    truth[0:5, 0:5], truth[10:20, 10:20], truth[25:30, 25:30] = 1, 2, 3
    prediction[0:5, 0:5], prediction[10:18, 10:18], prediction[0:3, 25:28] = 9, 8, 7
    counts = count_instances(InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction), 1)
    assert counts.tallies[:, 0, 0].tolist() == [2, 2, 2, *[1] * 7]
    assert challenge_score(counts) == pytest.approx((3 * 2 / 4 + 7 * 1 / 5) / 10)
    assert per_class("dice", counts.tallies)[0, 0] == pytest.approx(4 / 6)
    quality = panoptic_quality(counts)
    assert quality.sq[0] == pytest.approx(0.82) and quality.pq[0] == pytest.approx(0.82 * 4 / 6)


def test_an_iou_equal_to_the_threshold_does_not_match() -> None:
    truth, prediction = np.zeros((2, 1, 3), np.uint8)
    truth[0, :2], prediction[0, :1] = 1, 1
    assert count_instances(InstanceMasks.from_map(truth), InstanceMasks.from_map(prediction), 1).tallies[0, 0, 0] == 0


def test_empty_images() -> None:
    nothing, one = InstanceMasks.from_map(np.zeros((5, 5), np.uint8)), InstanceMasks.from_map(np.eye(5, dtype=np.uint8))
    assert np.isnan(challenge_score(count_instances(nothing, nothing, 2)))
    assert np.isnan(panoptic_quality(count_instances(nothing, nothing, 2)).pq).all()
    for pair in ((nothing, one), (one, nothing)):
        counts = count_instances(*pair, 2)
        assert challenge_score(counts) == 0
        assert panoptic_quality(counts).pq[0] == 0 and np.isnan(panoptic_quality(counts).pq[1])
    assert len(InstanceMasks.from_masks(np.zeros((3, 4, 4), np.bool_))) == 0


def test_counts_of_images_add_up() -> None:
    rng = np.random.default_rng(3)
    pairs = [random_instances(rng, (9, 9), 5, overlap=False) for _ in range(4)]
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
    ):  # three of the false positive's four rows are ignored, or two: half of them may be
        ignored[:] = False
        ignored[first:] = True
        assert count_instances(*pair, 1, ignored).tallies[0, 2, 0] == 1 + counted


@pytest.mark.parametrize("overlap", [True, False])
def test_ap_equals_its_definition(overlap: bool) -> None:
    """Thirty small datasets with ties of scores, empty images, all sizes and ignored regions; also against faster-coco-eval."""
    worst = 0.0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        counter, coco_counter = AveragePrecisionCounter(CLASSES), CocoCounter(CLASSES)
        images = []
        for _ in range(4):
            truth, prediction = random_instances(rng, (44, 45), 5, overlap)
            ignored = np.zeros(truth.shape, np.bool_)
            ignored[: int(rng.integers(0, 12))] = True
            counter.add(truth, prediction, ignored)
            coco_counter.add(truth, prediction, ignored)
            crowd = [PlainInstance(pixels_of(ignored), k, crowd=True) for k in range(CLASSES) if ignored.any()]
            images.append((plain(truth) + crowd, plain(prediction)))
        result = counter.result()
        for name, value in vars(coco_counter.result()).items():
            ours, theirs = (list(v.values()) if isinstance(v, dict) else v for v in (getattr(result, name), value))
            np.testing.assert_allclose(ours, theirs, atol=1e-12, err_msg=name)
        spans = {"all": (0, 1e10), **SIZES}
        table = np.array(
            [[[plain_ap(images, k, t, span) for t in THRESHOLDS] for k in range(CLASSES)] for span in spans.values()]
        )  # (sizes, classes, thresholds, 2)
        with np.errstate(invalid="ignore"):
            ours = [result.ap, result.ap50, result.ap75, *result.by_size.values(), result.recall]
            means = [table[0, :, :, 0], table[0, :, 0, 0], table[0, :, 5, 0], *table[1:, :, :, 0], table[0, :, :, 1]]
            theirs = [np.nan if np.isnan(m).all() else np.nanmean(m) for m in means]
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
        np.testing.assert_allclose(result.ap_of_class, table[0, :, :, 0].mean(1), atol=1e-9)
        np.testing.assert_allclose(result.recall_of_class, table[0, :, :, 1].mean(1), atol=1e-9)
        worst = max(worst, float(np.nanmax(np.abs(np.subtract(ours, theirs)), initial=0)))
    assert worst < 1e-9


def contested(rng: np.random.Generator) -> tuple[InstanceMasks, InstanceMasks, np.ndarray]:
    """Return overlapping true instances, each with several predictions that nearly fit, some of them half ignored."""
    shape, truth, predicted = (60, 64), [], []
    for number in range(8):
        if number % 2 == 0:
            (top, left), (height, width) = rng.integers(0, 30, 2), rng.integers(8, 45, 2)
        else:  # nearly the same instance again
            top, left = top + rng.integers(0, 5), left + rng.integers(0, 5)
        for stack, count, jitter in ((truth, 1, 1), (predicted, int(rng.integers(0, 4)), 6)):
            for _ in range(count):
                mask = np.zeros(shape, np.bool_)
                y, x = top + rng.integers(0, jitter), left + rng.integers(0, jitter)
                mask[y : y + height, x : x + width] = True
                stack.append(mask)
    ignored = np.zeros(shape, np.bool_)
    if rng.random() < 0.7:
        ignored[: int(rng.integers(5, 50)), : int(rng.integers(5, 60))] = True
    sides = [np.array(stack, np.bool_).reshape(-1, *shape) for stack in (truth, predicted)]
    kinds = [(rng.random(len(stack)) < 0.2).astype(int).tolist() for stack in sides]
    return (
        InstanceMasks.from_masks(sides[0], classes=kinds[0]),
        InstanceMasks.from_masks(sides[1], rng.choice([0.3, 0.5, 0.7, 0.9], len(sides[1])), kinds[1]),
        ignored,
    )


def test_ap_of_contested_instances_is_that_of_faster_coco_eval() -> None:
    """Compares by size and class, with ties of scores and IoU, several predictions of one instance, and partly ignored ones."""
    for seed in range(12):
        ours, theirs = AveragePrecisionCounter(2), CocoCounter(2)
        for image in range(4):
            drawn = contested(np.random.default_rng((seed, image)))
            for counter in (ours, theirs):
                counter.add(*drawn)
        for name, value in vars(theirs.result()).items():
            pair = [list(v.values()) if isinstance(v, dict) else v for v in (getattr(ours.result(), name), value)]
            np.testing.assert_allclose(*pair, atol=1e-12, err_msg=f"{name}, seed {seed}")


def test_ap_without_true_instances_does_not_exist() -> None:
    assert np.isnan(AveragePrecisionCounter(2).result().ap)
    nothing, one = InstanceMasks.from_map(np.zeros((5, 5), np.uint8)), InstanceMasks.from_map(np.eye(5, dtype=np.uint8))
    for pair, ap in (((nothing, nothing), np.nan), ((nothing, one), np.nan), ((one, nothing), 0.0), ((one, one), 1.0)):
        counter = AveragePrecisionCounter(2)
        counter.add(*pair)
        result = counter.result()
        np.testing.assert_equal([result.ap, result.ap50, result.by_size["small"], result.recall], [ap] * 4)
        assert np.isnan(result.ap_of_class[1])


@examples(30)
@given(hnp.arrays(np.uint16, (6, 7), elements=st.integers(0, 4)))
def test_a_perfect_prediction_has_the_full_score(labels: np.ndarray) -> None:
    instances = InstanceMasks.from_map(labels)
    counts = count_instances(instances, instances, 1)
    counter = AveragePrecisionCounter(1)
    counter.add(instances, instances)
    expected = 1.0 if labels.any() else np.nan
    np.testing.assert_equal(
        [challenge_score(counts), panoptic_quality(counts).pq[0], counter.result().ap], [expected] * 3
    )


def test_volumes_have_instances_too() -> None:
    truth = np.zeros((3, 4, 5), np.uint16)
    truth[:2, :2], truth[2, 3] = 5, 70
    counts = count_instances(
        InstanceMasks.from_map(truth), InstanceMasks.from_masks(np.stack([truth == 5, truth == 70])), 1
    )
    assert counts.tallies[-1, :, 0].tolist() == [2, 2, 2]
    counter = AveragePrecisionCounter(1)
    counter.add(InstanceMasks.from_map(truth), InstanceMasks.from_map(truth))
    assert counter.result().ap == 1


def test_invalid_inputs_are_refused() -> None:
    labels = np.eye(3, dtype=np.uint16)
    with pytest.raises(ValueError, match=r"instances \[1\] have no score"):
        InstanceMasks.from_map(labels, scores={2: 0.5})
    with pytest.raises(ValueError, match="uint8 or uint16"):
        InstanceMasks.from_map(labels.astype(np.int64))
    with pytest.raises(ValueError, match="1 masks, 2 scores"):
        InstanceMasks.from_masks(labels[None] > 0, [0.5, 0.5])
    with pytest.raises(ValueError, match="shape"):
        count_instances(InstanceMasks.from_map(labels), InstanceMasks.from_map(labels[:2]), 1)


def test_many_instances_need_little_memory() -> None:
    """A table of all pairs of 22,500 instances of 2 x 2 pixels, of which every second one is found, would take 2 GB."""
    labels = np.kron(np.arange(1, 22_501).reshape(150, 150), np.pad(np.ones((2, 2), int), 1)).astype(np.uint16)
    truth, prediction = (
        InstanceMasks.from_map(labels),
        InstanceMasks.from_map(np.where(labels % 2, labels, 0).astype(np.uint16)),
    )
    counter = AveragePrecisionCounter(1)
    tracemalloc.start()
    counter.add(truth, prediction)
    score = count_instances(truth, prediction, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20
    assert score.tallies[:, :, 0].tolist() == [[11_250, 22_500, 11_250]] * 10
    assert counter.result().ap == pytest.approx(51 / 101), "precision 1 up to recall 0.5"
