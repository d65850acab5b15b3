"""The oracle table: every metric against independent implementations, on random masks and on those that break things.

Prints metric, oracle, number of cases and the largest difference. Light oracles are scikit-learn, scikit-image, scipy,
networkx, the boundaries of faster-coco-eval and plain Python; those that need torch are slow, and of them torchmetrics, MONAI
and pycocotools are asked where they are installed.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from segpipe.metrics import (
    RATIOS,
    accuracy_macro,
    confusion,
    macro,
    matthews,
    metric,
    micro,
    per_class,
    tallies,
    weighted,
)
from segpipe.metrics.average_precision import SIZES, AveragePrecisionCounter
from segpipe.metrics.calibration import class_reliability, fit_temperature, reliability
from segpipe.metrics.instances import (
    THRESHOLDS,
    InstanceMasks,
    challenge_score,
    count_instances,
    match_pairs,
    panoptic_quality,
)
from segpipe.metrics.surface import boundary_tallies, surface_distances
from segpipe.samples import IGNORE
from tests.metrics.coco_oracle import CocoCounter
from tests.metrics.oracles import (
    PlainObject,
    dense,
    iou_matrix,
    pairs_of,
    pixels_of,
    plain_ap,
    plain_contour,
    plain_distances,
    plain_matthews,
)

K = 4
TOLERANCE = 0.75
Found = tuple[str, str, Any, Any]
"""Metric, oracle, our value or values, theirs."""


def box(shape: tuple[int, ...], *spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    mask[tuple(slice(*s) for s in spans)] = True
    return mask


@cache
def mask_pairs() -> list[tuple[str, np.ndarray, np.ndarray, tuple[float, ...]]]:
    """(what it is, truth, prediction, spacing): masks of one class, 2D and 3D."""
    from scipy.ndimage import gaussian_filter

    shape = (14, 17)
    one, nothing, full = box(shape, (5, 6), (7, 8)), np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    corner, border = box(shape, (0, 1), (0, 1)), box(shape, (0, 14), (0, 3))
    square = box(shape, (3, 9), (4, 12))
    pairs = [
        ("both empty", nothing, nothing),
        ("empty prediction", square, nothing),
        ("empty truth", nothing, square),
        ("both full", full, full),
        ("full prediction", square, full),
        ("one pixel", one, one),
        ("one pixel away", one, corner),
        ("disjoint", corner, square),
        ("touching the border", border, border[:, ::-1]),
        ("a hole", square & ~one, square),
    ]
    found = [(name, t, p, spacing) for name, t, p in pairs for spacing in ((1.0, 1.0), (0.4, 2.5))]
    rng = np.random.default_rng(0)
    for number in range(30):
        shape = (12, 15) if number % 3 else (5, 9, 8)
        noise = rng.normal(size=(2, *shape))
        if number % 2:
            noise = np.stack([gaussian_filter(n, 1.5) for n in noise]) + 0.3 * gaussian_filter(
                rng.normal(size=shape), 2
            )
        spacing = (1.0,) * len(shape) if number % 4 < 2 else (3.0, 0.7, 0.9)[: len(shape)]
        found.append((f"random {number}", noise[0] > 0.1, noise[1] > 0.1, spacing))
    return found


@cache
def label_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Class ids with ignored pixels: those of the masks above as class 1 of two, and random ones of all classes."""
    found = [(t.astype(np.uint8), p.astype(np.uint8)) for _, t, p, _ in mask_pairs()]
    rng = np.random.default_rng(1)
    for number in range(60):
        truth, prediction = rng.integers(0, int(rng.integers(1, K + 1)), (2, 8, 9)).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, prediction)
        truth = np.where(rng.random(truth.shape) < (0.2, 0.95, 1.0)[number % 3 if number % 7 else 2], IGNORE, truth)
        found.append((truth.astype(np.uint8), prediction))
    return found


def sets_of_classes(ratio: str, y: np.ndarray, p: np.ndarray) -> list[float]:
    """A ratio of each class, NaN of one that is in neither."""
    there = [((y == k) | (p == k)).any() for k in range(K)]
    return [
        by_sets(ratio, set(np.flatnonzero(y == k)), set(np.flatnonzero(p == k))) if there[k] else np.nan
        for k in range(K)
    ]


def levels() -> Iterator[Found]:
    """Means over images, and over counts summed over images; those without a counted pixel are among them."""
    from sklearn import metrics as sk

    of = {"iou": sk.jaccard_score, "dice": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
    names = [str(k) for k in range(K)]
    tally = np.stack([tallies(confusion(truth, said, K)) for truth, said in label_pairs()])
    sides = [(truth[truth != IGNORE], said[truth != IGNORE]) for truth, said in label_pairs()]
    sides = [(y, p) for y, p in sides if len(y)]
    everything = [np.concatenate(side) for side in zip(*sides, strict=True)]
    for ratio, f in of.items():
        for level, pairs in (("image", sides), ("dataset", [everything])):
            name = f"{ratio}.{level}.macro"
            own = metric(name, names).value(tally)
            theirs = [f(y, p, average="macro", zero_division=0) for y, p in pairs]
            yield name, "scikit-learn", own, np.mean(theirs)
            sets = np.array([sets_of_classes(ratio, y, p) for y, p in pairs])
            yield name, "plain sets", own, np.nanmean(sets, axis=1).mean()
            for k in range(K):
                single = f"{ratio}.image.class.{k}" if level == "image" else f"{ratio}.class.{k}"
                theirs = [f(y == k, p == k, zero_division=0) for y, p in pairs if ((y == k) | (p == k)).any()]
                own = metric(single, names).value(tally)
                yield f"{ratio} of a class, {level}", "scikit-learn", own, np.mean(theirs)
                yield f"{ratio} of a class, {level}", "plain sets", own, np.nanmean(sets[:, k])


def semantic() -> Iterator[Found]:
    from scipy.spatial import distance
    from sklearn import metrics as sk

    of = {"iou": sk.jaccard_score, "dice": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
    for truth, prediction in label_pairs():
        kept = truth != IGNORE
        y, p = truth[kept], prediction[kept]
        counts = confusion(truth, prediction, K)
        tally = tallies(counts)
        if not kept.any():
            everything = [f(r, tally) for r in RATIOS for f in (macro, micro, weighted)]
            yield "all ratios, everything ignored", "no value", [*everything, accuracy_macro(tally)], [np.nan] * 13
            continue
        yield "confusion", "scikit-learn", counts, sk.confusion_matrix(y, p, labels=range(K))
        yield "confusion", "plain", counts, [[np.sum((y == a) & (p == b)) for b in range(K)] for a in range(K)]
        for ratio, f in of.items():
            for mean, ours in (("macro", macro), ("micro", micro), ("weighted", weighted)):
                yield f"{ratio} {mean}", "scikit-learn", ours(ratio, tally), f(y, p, average=mean, zero_division=0)
            sets = sets_of_classes(ratio, y, p)
            yield f"{ratio} of a class", "plain sets", per_class(ratio, tally), sets
            yield f"{ratio} macro", "plain sets", macro(ratio, tally), np.nanmean(sets)
            shares = [np.mean(y == k) for k in range(K)]
            yield f"{ratio} weighted", "plain sets", weighted(ratio, tally), np.nansum(np.multiply(shares, sets))
            pairs = [{(i, int(c)) for i, c in enumerate(side)} for side in (y, p)]  # all classes as one
            yield f"{ratio} micro", "plain sets", micro(ratio, tally), by_sets(ratio, *pairs)
            each = f(y, p, average=None, labels=range(K), zero_division=0)
            yield f"{ratio} of a class", "scikit-learn", np.nan_to_num(per_class(ratio, tally)), each
        for k in range(K):
            if ((y == k) | (p == k)).any():
                yield "iou of a class", "scipy", per_class("iou", tally)[k], 1 - distance.jaccard(y == k, p == k)
                yield "dice of a class", "scipy", per_class("dice", tally)[k], 1 - distance.dice(y == k, p == k)
        yield "pixel accuracy", "scikit-learn", micro("recall", tally), sk.accuracy_score(y, p)
        yield "pixel accuracy", "plain", micro("recall", tally), np.mean(y == p)
        yield "mean class accuracy", "scikit-learn", accuracy_macro(tally), sk.balanced_accuracy_score(y, p)
        shares = [np.mean(p[y == k] == k) for k in np.unique(y)]
        yield "mean class accuracy", "plain", accuracy_macro(tally), np.mean(shares)
        if len(np.unique(np.concatenate([y, p]))) > 1:
            yield "Matthews correlation", "scikit-learn", matthews(tally), sk.matthews_corrcoef(y, p)
            yield "Matthews correlation", "plain", matthews(tally), plain_matthews(y, p, K)
            for k in {*y.tolist(), *p.tolist()}:
                own = metric(f"mcc.class.{k}", [str(i) for i in range(K)]).of(tally)
                yield "Matthews correlation of a class", "scikit-learn", own, sk.matthews_corrcoef(y == k, p == k)
                pair = (y == k).astype(int), (p == k).astype(int)
                yield "Matthews correlation of a class", "plain", own, plain_matthews(*pair, 2)
        else:
            yield "Matthews correlation, one class", "no value", matthews(tally), np.nan


def by_sets(ratio: str, there: set[Any], said: set[Any]) -> float:
    both = len(there & said)
    under = {
        "iou": len(there | said),
        "precision": len(said),
        "recall": len(there),
        "dice": (len(there) + len(said)) / 2,
    }
    return both / under[ratio] if under[ratio] else 0.0


def surfaces() -> Iterator[Found]:
    from scipy.ndimage import binary_erosion
    from scipy.spatial import cKDTree
    from skimage.metrics import hausdorff_distance

    for name, truth, prediction, spacing in mask_pairs():
        found = surface_distances(truth, prediction, spacing)
        ours = {"HD95": found.hausdorff(), "ASSD": found.average(), "NSD": found.dice(TOLERANCE)}
        if not (truth.any() and prediction.any()):
            diagonal = np.sqrt(sum((n * s) ** 2 for n, s in zip(truth.shape, spacing, strict=True)))
            policy = [np.nan] * 3 if name == "both empty" else [diagonal, diagonal, 0]
            for (metric, value), expected in zip(ours.items(), policy, strict=True):
                yield metric, "empty-mask policy", value, expected
            continue
        edges = [m & ~binary_erosion(m) for m in (truth, prediction)]
        points = [np.argwhere(e) * spacing for e in edges]
        by_tree = [cKDTree(points[1 - i]).query(points[i])[0] for i in (0, 1)]
        by_pair = [plain_distances(truth, prediction, spacing), plain_distances(prediction, truth, spacing)]
        for oracle, (a, b) in (("scipy k-d tree", by_tree), ("plain pairs", by_pair)):
            both = np.concatenate([a, b])
            yield "HD95", oracle, ours["HD95"], max(np.percentile(a, 95), np.percentile(b, 95))
            yield "Hausdorff", oracle, found.hausdorff(100), both.max()
            yield "ASSD", oracle, ours["ASSD"], both.mean()
            yield "NSD", oracle, ours["NSD"], (both <= TOLERANCE).mean()
        if set(spacing) == {1.0}:
            yield "Hausdorff", "scikit-image", found.hausdorff(100), hausdorff_distance(*edges)


def boundary() -> Iterator[Found]:
    from faster_coco_eval.core import mask as coco

    for _, truth, prediction, _ in mask_pairs():
        both = [plain_contour(m, 1) for m in (truth, prediction)]
        union = np.count_nonzero(both[0] | both[1])
        expected = np.count_nonzero(both[0] & both[1]) / union if union else np.nan
        pair = truth.astype(np.uint8), prediction.astype(np.uint8)
        yield "boundary IoU", "plain boxes", per_class("iou", boundary_tallies(*pair, 2, 1))[1], expected
    rng = np.random.default_rng(2)
    for number in range(12):  # as large as it takes for the band to be several pixels wide
        height, width = int(rng.integers(60, 200)), int(rng.integers(60, 200))
        truth = box((height, width), (0 if number % 2 else 12, height // 2), (9, width - number))
        prediction = np.roll(truth, int(rng.integers(0, 4)), axis=1) | box(
            (height, width), (height - 8, height - 2), (1, 9)
        )
        ours = per_class("iou", boundary_tallies(truth.astype(np.uint8), prediction.astype(np.uint8), 2))[1]
        codes = [coco.encode(np.asfortranarray(m, np.uint8)) for m in (truth, prediction)]
        for backend in ("mask_api", "opencv"):
            there, said = (coco.decode(coco.rleToBoundary(c, 0.02, backend)) > 0 for c in codes)
            theirs = np.count_nonzero(there & said) / np.count_nonzero(there | said)
            yield "boundary IoU", f"faster-coco-eval, {backend}", ours, theirs


@cache
def object_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps of object ids: rectangles on each other, moved, split, missed and invented; and the empty ones."""
    rng = np.random.default_rng(3)
    empty = np.zeros((40, 44), np.uint16)
    lone = empty.copy()
    lone[0, 0] = 9
    found = [(empty, empty), (lone, empty), (empty, lone), (lone, lone), (np.ones_like(empty), np.ones_like(empty))]
    for _ in range(25):
        truth, prediction = empty.copy(), empty.copy()
        for number in range(1, int(rng.integers(2, 12))):
            top, left, height, width = *rng.integers(0, 34, 2), *rng.integers(3, 12, 2)
            truth[top : top + height, left : left + width] = number
            if rng.random() < 0.85:
                top, left = top + int(rng.integers(0, 2)), left + int(rng.integers(0, 3))
                prediction[top : top + height, left : left + width] = 5 * number
        prediction[rng.random(empty.shape) < 0.03] = 400
        found.append((truth, prediction))
    return found


def objects() -> Iterator[Found]:
    import networkx as nx

    for truth_map, prediction_map in object_pairs():
        truth, prediction = InstanceMasks.from_map(truth_map), InstanceMasks.from_map(prediction_map)
        score = count_instances(truth, prediction, 1)
        histogram = np.histogram2d(truth_map.ravel(), prediction_map.ravel(), [np.arange(402)] * 2)[0]
        rows, columns = histogram.sum(1), histogram.sum(0)
        union = rows[:, None] + columns[None] - histogram
        iou = np.divide(histogram, union, out=np.zeros_like(union), where=union > 0)[1:, 1:]
        iou = iou[rows[1:] > 0][:, columns[1:] > 0]
        yield "IoU of objects", "numpy histogram2d", iou_matrix(truth, prediction), iou
        total = len(truth) + len(prediction)
        if not total:
            yield "challenge score, no object", "no value", challenge_score(score), np.nan
            continue
        own: dict[str, Any] = {
            "challenge score": challenge_score(score),
            "panoptic quality": panoptic_quality(score).pq[0],
            "object F1": per_class("dice", score.tallies)[:, 0],
            "object precision": per_class("precision", score.tallies)[:, 0],
            "object recall": per_class("recall", score.tallies)[:, 0],
        }
        sides = [[pixels_of(m == i) for i in np.unique(m) if i] for m in (truth_map, prediction_map)]
        by_pixel = np.array([[len(a & b) / len(a | b) for b in sides[1]] for a in sides[0]]).reshape(iou.shape)
        yield "IoU of objects", "plain sets", iou_matrix(truth, prediction), by_pixel
        for oracle, table in (("numpy histogram2d", iou), ("plain sets", by_pixel)):
            found = [[(i, j) for i, row in enumerate(table) for j, v in enumerate(row) if v > t] for t in THRESHOLDS]
            n = np.array([len(pairs) for pairs in found])
            yield "matched objects", oracle, score.tallies[:, 0, 0], n
            theirs = {
                "challenge score": np.mean(n / (total - n)),
                "object F1": 2 * n / total,
                "panoptic quality": 2 * sum(table[pair] for pair in found[0]) / total,
                "object precision": n / max(1, len(prediction)),
                "object recall": n / max(1, len(truth)),
            }
            for name, value in theirs.items():
                yield name, oracle, own[name], value
    rng = np.random.default_rng(4)
    for _ in range(40):  # IoU such as overlapping masks have: an object may fit several
        iou = rng.random(tuple(rng.integers(1, 8, 2)))
        found = pairs_of(iou)
        graph = nx.Graph()
        rows, columns = np.nonzero(iou > 0.5)
        graph.add_weighted_edges_from((f"t{i}", f"p{j}", iou[i, j]) for i, j in zip(rows, columns, strict=True))
        best = nx.max_weight_matching(graph, maxcardinality=True)
        chosen = dense(found.only(match_pairs(found, 0.5)), iou.shape) > 0
        theirs = [len(best), sum(graph.edges[edge]["weight"] for edge in best)]
        yield "matches of overlapping objects", "networkx", [chosen.sum(), iou[chosen].sum()], theirs
        yield (
            "matches of overlapping objects",
            "plain, all assignments",
            [chosen.sum(), iou[chosen].sum()],
            most_pairs(iou),
        )


def most_pairs(iou: np.ndarray) -> tuple[int, float]:
    """The most matches above 0.5 that an assignment has, and of those the largest sum of IoU."""
    wide = iou if len(iou) <= iou.shape[1] else iou.T

    def best(row: int, taken: int) -> tuple[int, float]:
        if row == len(wide):
            return 0, 0.0
        found = best(row + 1, taken)
        for column, value in enumerate(wide[row]):
            if value > 0.5 and not taken >> column & 1:
                more = best(row + 1, taken | 1 << column)
                found = max(found, (more[0] + 1, more[1] + value))
        return found

    return best(0, 0)


def average_precision() -> Iterator[Found]:
    rng = np.random.default_rng(5)
    pairs = object_pairs()
    for start in range(0, len(pairs), 5):
        counter, coco, images = AveragePrecisionCounter(1), CocoCounter(1), []
        for truth_map, prediction_map in pairs[start : start + 5]:
            scores = dict(enumerate(rng.choice([0.3, 0.6, 0.8, 0.9], 401)))
            prediction = InstanceMasks.from_map(prediction_map, scores)
            for each in (counter, coco):
                each.add(InstanceMasks.from_map(truth_map), prediction)
            sides = [
                [
                    PlainObject(pixels_of(m == i), 0, scores[i] if m is prediction_map else 1.0)
                    for i in np.unique(m)
                    if i
                ]
                for m in (truth_map, prediction_map)
            ]
            images.append((sides[0], sides[1]))
        found = counter.result()
        table = np.array([plain_ap(images, 0, t) for t in THRESHOLDS])
        yield (
            "COCO AP, AP50, AP75",
            "plain",
            [found.ap, found.ap50, found.ap75],
            [table[:, 0].mean(), *table[[0, 5], 0]],
        )
        yield "COCO recall", "plain", found.recall, table[:, 1].mean()
        by_size = [np.mean([plain_ap(images, 0, t, ends)[0] for t in THRESHOLDS]) for ends in SIZES.values()]
        yield "COCO AP small, medium, large", "plain", list(found.by_size.values()), by_size
        theirs = coco.result()
        for name, figures in (
            ("COCO AP, AP50, AP75", (lambda r: [r.ap, r.ap50, r.ap75])),
            ("COCO AP small, medium, large", (lambda r: list(r.by_size.values()))),
            ("COCO recall", (lambda r: r.recall)),
        ):
            yield name, "faster-coco-eval", figures(found), figures(theirs)


def precision_of_classes() -> Iterator[Found]:
    """Two classes: odd and even true numbers; predictions have five times the number of what they are of."""
    rng = np.random.default_rng(8)
    counter, coco, images = AveragePrecisionCounter(2), CocoCounter(2), []
    kinds = [{i: i % 2 for i in range(402)}, {i: i // 5 % 2 for i in range(402)}]
    for maps in object_pairs():
        scores = [dict.fromkeys(range(402), 1.0), dict(enumerate(rng.choice([0.3, 0.6, 0.8], 402)))]
        pair = [InstanceMasks.from_map(*three) for three in zip(maps, scores, kinds, strict=True)]
        for each in (counter, coco):
            each.add(*pair)
        images.append(
            tuple(
                [PlainObject(pixels_of(ids == i), of[int(i)], sure[int(i)]) for i in np.unique(ids) if i]
                for ids, sure, of in zip(maps, scores, kinds, strict=True)
            )
        )
    ours, theirs = counter.result(), coco.result()
    plain = np.array([[plain_ap(images, k, t) for t in THRESHOLDS] for k in range(2)]).mean(1)
    for name, own, other in (("ap", ours.ap_of_class, plain[:, 0]), ("recall", ours.recall_of_class, plain[:, 1])):
        yield f"COCO {name} of a class", "plain", own, other
        yield f"COCO {name} of a class", "faster-coco-eval", own, getattr(theirs, f"{name}_of_class")


@cache
def probability_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Class ids and logits (classes, n): as sure as right, too sure, always sure, and a single pixel."""
    rng = np.random.default_rng(6)
    found = []
    for number in range(20):
        n = 1 if number == 0 else int(rng.integers(20, 900))
        logits = rng.normal(0, 2, (K, n))
        p = softmax(logits / (0.5, 1, 3)[number % 3])
        truth = (p.cumsum(0) < rng.random(n)).sum(0).clip(0, K - 1).astype(np.uint8)
        found.append((truth, 60 * logits if number == 1 else logits))
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def binned_error(confidence: np.ndarray, hit: np.ndarray, largest: bool = False) -> float:
    from scipy.stats import binned_statistic

    of = "mean" if largest else "sum"
    sides = [binned_statistic(-confidence, values, of, 15, (-1, 0))[0] for values in (confidence, hit)]
    gaps = np.abs(sides[0] - sides[1])
    return float(np.nanmax(gaps) if largest else gaps.sum() / len(hit))


def plain_gaps(confidence: np.ndarray, hit: np.ndarray) -> tuple[list[float], list[int]]:
    """|summed confidence - hits| of each bin that has pixels, and how many it has."""
    bins = [(confidence > b / 15) & (confidence <= (b + 1) / 15) for b in range(15)]
    filled = [inside for inside in bins if inside.any()]
    return [abs(confidence[i].sum() - hit[i].sum()) for i in filled], [int(i.sum()) for i in filled]


def calibration() -> Iterator[Found]:
    from scipy.optimize import minimize_scalar
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import log_loss

    for truth, logits in probability_pairs():
        p = softmax(logits)
        confidence, hit = p.max(0), p.argmax(0) == truth
        ours = reliability(truth, p).expected_error()[0]
        yield "ECE", "scipy binned_statistic", ours, binned_error(confidence, hit)
        gaps, _ = plain_gaps(confidence, hit)
        yield "ECE", "plain", ours, sum(gaps) / len(truth)
        sure, share = (axis[0][~np.isnan(axis[0])] for axis in reliability(truth, p).curve())
        yield (
            "reliability curve",
            "scikit-learn",
            [share, sure],
            calibration_curve(hit.astype(int), confidence, n_bins=15),
        )
        filled = [here for b in range(15) if (here := (confidence > b / 15) & (confidence <= (b + 1) / 15)).any()]
        yield "reliability curve", "plain", [share, sure], [[v[i].mean() for i in filled] for v in (hit, confidence)]
        each = [binned_error(p[k], truth == k) for k in range(K)]
        ours = class_reliability(truth, p).expected_error()
        yield "ECE of each class", "scipy binned_statistic", ours, each
        yield "ECE of each class", "plain", ours, [sum(plain_gaps(p[k], truth == k)[0]) / len(truth) for k in range(K)]
        largest = reliability(truth, p).largest_error()[0]
        yield "largest calibration error", "plain", largest, max(np.divide(*plain_gaps(confidence, hit)))
        yield (
            "largest calibration error",
            "scipy binned_statistic",
            largest,
            binned_error(confidence, hit, largest=True),
        )
        if p.min() > 1e-10:
            with np.errstate(over="ignore"):
                best = minimize_scalar(
                    lambda t, y=truth, x=logits: -np.log(softmax(x / t)[y, np.arange(y.size)]).mean(),
                    bounds=(0.05, 20),
                    method="bounded",
                    options={"xatol": 1e-9},
                )
            at = fit_temperature(truth, logits)
            likelihood = log_loss(truth, softmax(logits / at).T, labels=range(K))
            yield "temperature (its likelihood)", "scipy bounded search", likelihood, best.fun
            grid = [log_loss(truth, softmax(logits / t).T, labels=range(K)) for t in at * np.linspace(0.9, 1.1, 41)]
            yield "temperature (its likelihood)", "scikit-learn log_loss on a grid", likelihood, min(grid)


def with_torch() -> Iterator[Found]:
    """Libraries on top of torch. segmentation-models-pytorch has no ignored pixels that count nowhere: they are left out."""
    import segmentation_models_pytorch as smp
    import torch

    for truth, prediction in label_pairs():
        kept = truth != IGNORE
        tally = tallies(confusion(truth, prediction, K))
        if not kept.any():
            continue
        y, p = (torch.from_numpy(m[kept].astype(np.int64))[None] for m in (truth, prediction))
        stats = smp.metrics.get_stats(p, y, mode="multiclass", num_classes=K)
        for ratio, f in {
            "iou": smp.metrics.iou_score,
            "dice": smp.metrics.f1_score,
            "recall": smp.metrics.recall,
        }.items():
            yield (
                f"{ratio} micro",
                "segmentation-models-pytorch",
                micro(ratio, tally),
                float(f(*stats, reduction="micro")),
            )
            if not np.isnan(per_class(ratio, tally)).any():  # its macro is over all classes, there or not
                yield (
                    f"{ratio} macro",
                    "segmentation-models-pytorch",
                    macro(ratio, tally),
                    float(f(*stats, reduction="macro")),
                )


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def with_torchmetrics() -> Iterator[Found]:
    import torch
    from torchmetrics.functional import classification as tm
    from torchmetrics.functional.detection import panoptic_quality as their_quality

    of = {"iou": tm.multiclass_jaccard_index, "dice": tm.multiclass_f1_score, "precision": tm.multiclass_precision}
    for truth, prediction in label_pairs():
        y, p = (torch.from_numpy(m.astype(np.int64)) for m in (truth, prediction))
        counts = confusion(truth, prediction, K)
        tally = tallies(counts)
        theirs = tm.multiclass_confusion_matrix(p, y, K, ignore_index=IGNORE).numpy()
        yield "confusion", "torchmetrics", counts, theirs
        if not counts.any():
            continue
        for ratio, f in of.items():
            each = f(p, y, K, average="none", ignore_index=IGNORE).numpy()
            there = ~np.isnan(per_class(ratio, tally))
            yield f"{ratio} of a class", "torchmetrics", per_class(ratio, tally)[there], each[there]
        if (
            not np.isnan(matthews(tally))
            and np.count_nonzero(counts.sum(0)) > 1
            and np.count_nonzero(counts.sum(1)) > 1
        ):
            theirs = float(tm.multiclass_matthews_corrcoef(p, y, K, ignore_index=IGNORE))
            yield "Matthews correlation", "torchmetrics", matthews(tally), theirs
    for truth_map, prediction_map in object_pairs():
        if truth_map.any() or prediction_map.any():
            sides = [
                torch.from_numpy(np.stack([m > 0, m], -1).astype(np.int64))[None] for m in (prediction_map, truth_map)
            ]
            theirs = float(their_quality(*sides, things={1}, stuffs={0}, return_per_class=True)[0, 0])
            score = count_instances(InstanceMasks.from_map(truth_map), InstanceMasks.from_map(prediction_map), 1)
            yield "panoptic quality", "torchmetrics", panoptic_quality(score).pq[0], theirs
    for truth, logits in probability_pairs():
        p = softmax(logits)
        theirs = float(
            tm.multiclass_calibration_error(torch.from_numpy(p.T), torch.from_numpy(truth.astype(int)), K, 15)
        )
        yield "ECE", "torchmetrics", reliability(truth, p).expected_error()[0], theirs
        pair = torch.from_numpy(p.T), torch.from_numpy(truth.astype(int))
        theirs = float(tm.multiclass_calibration_error(*pair, K, 15, norm="max"))
        yield "largest calibration error", "torchmetrics", reliability(truth, p).largest_error()[0], theirs


def with_monai() -> Iterator[Found]:
    import torch
    from monai import metrics as mm

    for _, truth, prediction, spacing in mask_pairs():
        if not (truth.any() and prediction.any()):
            continue
        pair = [torch.from_numpy(m.astype(np.float32))[None, None] for m in (prediction, truth)]
        found = surface_distances(truth, prediction, spacing)
        kwargs = {"include_background": True, "spacing": list(spacing)}
        yield "HD95", "MONAI", found.hausdorff(), float(mm.compute_hausdorff_distance(*pair, percentile=95, **kwargs))
        yield "Hausdorff", "MONAI", found.hausdorff(100), float(mm.compute_hausdorff_distance(*pair, **kwargs))
        theirs = float(mm.compute_average_surface_distance(*pair, symmetric=True, **kwargs))
        yield "ASSD", "MONAI", found.average(), theirs
        theirs = float(mm.compute_surface_dice(*pair, class_thresholds=[TOLERANCE], **kwargs))
        yield "NSD", "MONAI", found.dice(TOLERANCE), theirs


def with_pycocotools() -> Iterator[Found]:
    import contextlib
    import io

    from pycocotools import mask as codes
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(7)
    counter, images, truths, said = AveragePrecisionCounter(1), [], [], []
    for image, (truth_map, prediction_map) in enumerate(object_pairs(), start=1):
        scores = dict(enumerate(rng.random(401)))
        counter.add(InstanceMasks.from_map(truth_map), InstanceMasks.from_map(prediction_map, scores))
        images.append({"id": image, "height": truth_map.shape[0], "width": truth_map.shape[1]})
        for rows, ids in ((truths, truth_map), (said, prediction_map)):
            for i in (i for i in np.unique(ids) if i):
                code = codes.encode(np.asfortranarray(ids == i, np.uint8))
                row = {"image_id": image, "category_id": 1, "segmentation": code, "score": scores[i], "iscrowd": 0}
                rows.append(row | {"id": len(rows) + 1, "area": int((ids == i).sum()), "bbox": [0, 0, 1, 1]})
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for rows in (truths, said):
            side = COCO()
            side.dataset = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "x"}]}
            side.createIndex()
            sides.append(side)
        theirs = COCOeval(*sides, "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    ours = counter.result()
    yield "COCO AP, AP50, AP75", "pycocotools", [ours.ap, ours.ap50, ours.ap75], theirs.stats[:3]
    by_size = np.where(theirs.stats[3:6] < 0, np.nan, theirs.stats[3:6])
    yield "COCO AP small, medium, large", "pycocotools", list(ours.by_size.values()), by_size
    yield "COCO recall", "pycocotools", ours.recall, theirs.stats[8]


@dataclass
class Row:
    cases: int = 0
    worst: float = 0.0


def collect(*sources: Iterator[Found]) -> dict[tuple[str, str], Row]:
    table: dict[tuple[str, str], Row] = {}
    for source in sources:
        for name, oracle, ours, theirs in source:
            ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            assert ours.shape == theirs.shape, (name, oracle)
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), f"{name} {oracle}")
            row = table.setdefault((name, oracle), Row())
            row.cases += 1
            row.worst = max(row.worst, float(np.nanmax(np.abs(ours - theirs), initial=0)))
    return table


def show(table: dict[tuple[str, str], Row]) -> str:
    lines = [f"{'metric':<32} {'oracle':<29} {'cases':>5}  max difference"]
    for (name, oracle), row in sorted(table.items()):
        lines.append(f"{name:<32} {oracle:<29} {row.cases:>5}  {row.worst:.1e}")
    return "\n".join(lines)


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of masks without a class
        yield


def test_oracle_table(quiet: None, capsys: pytest.CaptureFixture[str]) -> None:
    table = collect(
        semantic(),
        levels(),
        surfaces(),
        boundary(),
        objects(),
        average_precision(),
        precision_of_classes(),
        with_pycocotools(),
        calibration(),
    )
    with capsys.disabled():
        print("\n" + show(table))
    assert max(row.worst for row in table.values()) < 1e-9
    oracles: dict[str, set[str]] = {}
    for name, oracle in table:
        oracles.setdefault(name, set()).add(oracle)
    single = {name for name, own in oracles.items() if len(own) < 2 and own != {"no value"}}
    assert not single, "each metric has two independent oracles"


@pytest.mark.slow  # the imports take several seconds
def test_oracle_table_of_libraries_on_torch(quiet: None, capsys: pytest.CaptureFixture[str]) -> None:
    optional = {"torchmetrics": with_torchmetrics, "monai": with_monai}
    missing = [name for name in optional if not installed(name)]
    table = collect(with_torch(), *(rows() for name, rows in optional.items() if name not in missing))
    with capsys.disabled():
        print("\n" + show(table) + "".join(f"\n{name} is not installed: not asked" for name in missing))
    assert max(row.worst for row in table.values()) < 2e-5, {k: r for k, r in table.items() if r.worst > 2e-5}
