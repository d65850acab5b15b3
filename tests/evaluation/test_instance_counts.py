"""Instance scores of `evaluate`, compared with brute force and pycocotools."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segpipe.config import EvaluateParams
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.scores_file import read_scores
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.segmenter import Segmenter
from segpipe.metrics.instances import THRESHOLDS
from segpipe.samples import IGNORE, Sample
from tests.worlds.cells import cells
from tests.worlds.evaluated_workspace import CLASSES, make_segmenter

QUICK = EvaluateParams(gallery=1, resamples=200)


@pytest.fixture(scope="module", params=[False, True], ids=["all pixels count", "with ignored pixels"])
def evaluated(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instances")
    samples = [cells(i, request.param) for i in range(6)]
    write_shards(folder / "shards", "test", samples, len(CLASSES))
    plain = make_segmenter(0.02)
    spec = plain.spec.model_copy(update={"postprocess": Postprocess(method="components", min_size=3)})
    segmenter = Segmenter(spec, plain.engine)
    evaluate_candidate(segmenter, ShardReader(folder / "shards", "test"), folder / "e", QUICK, "unet")
    return samples, segmenter, json.loads((folder / "e/metrics.json").read_text())["test"], folder / "e"


def pairs_of(sample, segmenter):
    """Return true and predicted instances as (class, score, mask), without ignored pixels, and the IoU of each pair."""
    instances = segmenter.predict(sample.image, instances=True).instances
    counted = sample.labels != IGNORE
    truth = [
        (int(np.bincount(sample.labels[sample.instances == i]).argmax()), 1.0, (sample.instances == i) & counted)
        for i in range(1, int(sample.instances.max()) + 1)
        if (sample.labels[sample.instances == i] == IGNORE).mean() < 0.5
    ]
    predicted = [
        (int(c), float(s), instances.ids == i)
        for i, (c, s) in enumerate(zip(instances.classes, instances.scores, strict=True), 1)
    ]
    predicted = [(c, s, m & counted) for c, s, m in predicted if (m & ~counted).sum() * 2 <= m.sum()]
    iou = [[float(a == b) * (s & t).sum() / max(1, (s | t).sum()) for b, _, s in predicted] for a, _, t in truth]
    return truth, predicted, np.array(iou).reshape(len(truth), len(predicted))


def test_counts_by_image_f1_challenge_score_and_panoptic_quality(evaluated):
    samples, segmenter, table, folder = evaluated
    scores = read_scores(folder / "per_image.parquet")
    challenge, matched, sums = [], np.zeros((10, 3)), np.zeros((3, 4))
    for index, sample in enumerate(samples):
        truth, predicted, iou = pairs_of(sample, segmenter)
        counts = np.array(
            [[(iou > t).sum(), len(truth), len(predicted)] for t in THRESHOLDS]
        )  # over 0.5 pairs are unique
        np.testing.assert_array_equal(scores.instances[index].sum(-1), counts)
        challenge.append(np.mean([tp / (n + m - tp) for tp, n, m in counts]))
        matched += counts
        for k in (1, 2):
            of_class = iou * np.array([a == k for a, *_ in truth])[:, None]
            sums[k] += [
                of_class[of_class > 0.5].sum(),
                (of_class > 0.5).sum(),
                sum(a == k for a, *_ in truth),
                sum(b == k for b, *_ in predicted),
            ]
    instance = table["instance"]
    tp, n, m = matched[0]
    assert instance["f1_50"] == pytest.approx(2 * tp / (n + m), abs=1e-6) and 0.3 < instance["f1_50"] < 1
    assert instance["challenge"] == pytest.approx(np.mean(challenge), abs=1e-6)
    quality = [sums[k, 0] / (0.5 * (sums[k, 2] + sums[k, 3])) for k in (1, 2)]
    assert instance["pq"] == pytest.approx(np.mean(quality), abs=1e-6)
    assert [instance["class"][name]["pq"] for name in CLASSES.names[1:]] == pytest.approx(quality, abs=1e-6)
    assert (instance["true"], instance["found"]) == (n, m)
    assert instance["interval"]["f1_50"]["low"] < instance["f1_50"] < instance["interval"]["f1_50"]["high"]


@pytest.mark.parametrize("evaluated", [False], ids=["all pixels count"], indirect=True)
def test_average_precision_is_that_of_pycocotools(evaluated):
    """Without ignored pixels: COCO has crowds instead."""
    samples, segmenter, table, _ = evaluated
    truth, detections = COCO(), []
    truth.dataset = {"images": [], "annotations": [], "categories": [{"id": k} for k in (1, 2)], "info": {}}
    for image, sample in enumerate(samples, 1):
        truth.dataset["images"].append({"id": image, "height": 64, "width": 72})
        for rows, kind in zip(pairs_of(sample, segmenter)[:2], ("truth", "said"), strict=True):
            for label, score, mask in rows:
                encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
                row = {"image_id": image, "category_id": label, "segmentation": encoded, "score": score}
                if kind == "said":
                    detections.append(row)
                else:
                    number = len(truth.dataset["annotations"]) + 1
                    truth.dataset["annotations"].append(
                        row | {"id": number, "area": int(mask.sum()), "iscrowd": 0, "bbox": [0, 0, 1, 1]}
                    )
    truth.createIndex()
    oracle = COCOeval(truth, truth.loadRes(detections), "segm")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    scores = [table["instance"][name] for name in ("ap", "ap50", "ap75", "ap_small")]
    assert scores == pytest.approx(oracle.stats[:4].tolist(), abs=1e-6)
    assert 0.1 < scores[0] < scores[1] < 1


def test_without_instances_there_are_no_instance_scores(evaluated, tmp_path):
    samples, segmenter, _, _ = evaluated
    bare = [Sample(s.key, s.image, s.labels) for s in samples[:3]]
    write_shards(tmp_path / "shards", "test", bare, len(CLASSES))
    evaluate_candidate(segmenter, ShardReader(tmp_path / "shards", "test"), tmp_path / "e", QUICK, "unet")
    assert "instance" not in json.loads((tmp_path / "e/metrics.json").read_text())["test"]
    assert read_scores(tmp_path / "e/per_image.parquet").instances is None


def test_the_gallery_outlines_true_and_predicted_instances():
    from segpipe.evaluation.gallery.pictures import draw

    sample = cells(0, ignored=False)
    other = np.where(sample.instances == 1, 0, sample.instances)
    labels = np.minimum(sample.labels, 2)
    plain = draw(sample.image, labels, labels, CLASSES)
    drawn = draw(sample.image, labels, labels, CLASSES, instances=(sample.instances, other))
    changed = {name: (plain[name] != drawn[name]).any(2) for name in plain}
    assert not changed["image"].any() and not changed["errors"].any()
    rows, columns = np.nonzero(sample.instances == 1)
    at = (rows.min(), columns.min())
    assert changed["truth"][at] and not changed["prediction"][at] and changed["prediction"].any()
