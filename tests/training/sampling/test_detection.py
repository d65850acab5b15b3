"""Training on objects: crops that keep them, the detector's contract, a small training from end to end."""

import json
import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from segpipe.config import Candidate, Params, parse_params
from segpipe.errors import ConfigError, MissingError
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained import load_trained
from segpipe.metrics import micro
from segpipe.metrics.instances import Objects, object_score
from segpipe.models.detection.config import MaskRcnnConfig
from segpipe.models.detection.mask_rcnn import load_coco
from segpipe.models.registry import build_network, family, family_config
from segpipe.samples import IGNORE, ClassTable, Sample
from segpipe.training.finishing.instance_search import best_instance_settings, choose_instance_method
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.detection import InstanceCrops, detection_loss, fit_to_objects, target_of
from segpipe.training.train import train_on
from tests.worlds.detectors import SMALL, detector_plan, discs
from tests.worlds.tiny_training import CLASSES, MemoryReader, fingerprint_of


@pytest.fixture(scope="module")
def reader():
    return MemoryReader([discs(i) for i in range(6)])


@pytest.mark.parametrize("strength", ["off", "medium", "strong"])
def test_targets_are_the_objects_of_their_crop(reader, strength):
    """Masks do not overlap, lie in their boxes to the pixel, are of one class, and stand where the image shows a disc."""
    crops = InstanceCrops(reader, detector_plan(augment=strength, free_orientation=True))
    seen = 0
    for position in range(12):
        image, target = crops[position]
        masks, boxes, labels = (target[name].numpy() for name in ("masks", "boxes", "labels"))
        assert image.shape == (3, 64, 64) and masks.shape[1:] == (64, 64) and masks.sum(0).max(initial=0) <= 1
        assert masks.dtype == np.uint8 and boxes.dtype == np.int64 == labels.dtype
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        if len(masks) and not masks.any(0).all():
            inside, outside = (image.mean(0)[masks.any(0) == v].mean() for v in (True, False))
            assert inside > outside + 0.3
        if strength == "off":
            assert {1, 2} >= set(labels.tolist())
        seen += len(masks)
    assert seen > 30


def test_crops_follow_from_seed_and_position_and_make_batches(reader):
    plan = detector_plan()
    first, second = InstanceCrops(reader, plan)[7], InstanceCrops(reader, plan)[7]
    np.testing.assert_array_equal(first[0], second[0])
    assert all(torch.equal(first[1][k], second[1][k]) for k in first[1])
    images, targets = next(batches(InstanceCrops(reader, plan), plan.recipe, 0))
    assert images.shape == (2, 3, 64, 64) and len(targets) == 2 and set(targets[0]) == {"boxes", "labels", "masks"}


def test_targets_leave_out_what_is_no_object():
    labels, ids = np.zeros((12, 12), np.uint16), np.zeros((12, 12), np.uint16)
    ids[0:3, 0:3], labels[0:3, 0:3] = 9, 1
    ids[4:6, 0:1], labels[4:6, 0:1] = 4, 1  # two pixels
    ids[8:12, 8:12] = 5  # of class 0
    ids[0:4, 6:12], labels[0:4, 6:12] = 6, 2
    labels[0:4, 10:12] = IGNORE
    target = target_of(labels, ids)
    assert target["labels"].tolist() == [2, 1] and target["boxes"].tolist() == [[6, 0, 10, 4], [0, 0, 3, 3]]
    assert target_of(labels * 0, ids * 0)["masks"].shape == (0, 12, 12)


def test_a_batch_without_objects_has_a_cost():
    network = build_network("mask_rcnn", MaskRcnnConfig.model_validate(SMALL), 3, 2, 0).train()
    nothing = target_of(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16))
    empty = detection_loss(network, (torch.randn(2, 3, 64, 64), [nothing, nothing]), torch.device("cpu"))
    assert empty.dtype == torch.float32 and torch.isfinite(empty)


def test_anchors_span_the_sizes_of_objects(reader):
    reasons: dict[str, str] = {}
    config = fit_to_objects(MaskRcnnConfig(), reader, reasons)
    boxes = [b for s in reader.samples for b in ndimage.find_objects(s.instances) if b]
    edges = sorted(((b[0].stop - b[0].start) * (b[1].stop - b[1].start)) ** 0.5 for b in boxes)
    assert edges[0] - 1 <= config.anchors[0] <= config.anchors[-1] <= edges[-1] + 1
    assert config.first_stride == 4 and config.detections == 100 and "pixels from stride 4" in reasons["anchors"]
    own = fit_to_objects(MaskRcnnConfig(anchors=(7, 70), first_stride=8, detections=9), reader, {})
    assert (own.anchors, own.first_stride, own.detections) == ((7, 70), 8, 9)
    with pytest.raises(ConfigError, match="the training images have none"):
        fit_to_objects(MaskRcnnConfig(), MemoryReader([Sample("a", s.image, s.labels) for s in reader.samples]), {})


def test_coco_weights_fit_what_has_their_shape():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    config = MaskRcnnConfig(encoder="resnet50", encoder_weights="none", channels=256, hidden=1024, mask_convs=4)
    network = build_network("mask_rcnn", config, 3, 2, 0)
    load_coco(network, state)
    mine = network.state_dict()
    taken = {
        k for k in mine if torch.equal(mine[k], state.get(k.replace("backbone.encoder", "backbone.body"), mine[k] + 1))
    }
    untaken = {k.rsplit(".", 1)[0] for k in set(mine) - taken if not k.endswith("num_batches_tracked")}
    assert untaken <= {f"roi_heads.box_predictor.{n}" for n in ("cls_score", "bbox_pred")} | {
        "roi_heads.mask_predictor.mask_fcn_logits"
    }
    with pytest.raises(ValidationError, match="COCO weights belong to `encoder: resnet50`"):
        MaskRcnnConfig(encoder_weights="coco")


def test_without_the_hub_the_error_names_the_ways_out(monkeypatch):
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(type(MaskRCNN_ResNet50_FPN_Weights.COCO_V1), "get_state_dict", offline)
    config = MaskRcnnConfig(encoder="resnet50", encoder_weights="coco")
    with pytest.raises(MissingError, match=r"no COCO weights for mask_rcnn: Name or service.*encoder_weights: auto"):
        build_network("mask_rcnn", config, 3, 2, 0)


def test_how_objects_are_found_follows_from_family_and_data():
    unet, detector = family("unet"), family("mask_rcnn")
    assert choose_instance_method(Candidate(family="unet"), unet, True) == "watershed"
    assert choose_instance_method(Candidate(family="unet"), unet, False) is None
    assert choose_instance_method(Candidate(family="unet", postprocess="off"), unet, True) is None
    assert choose_instance_method(Candidate(family="unet", postprocess="components"), unet, True) == "components"
    assert choose_instance_method(Candidate(family="mask_rcnn"), detector, True) == "detections"
    with pytest.raises(ConfigError, match="no objects to choose"):
        choose_instance_method(Candidate(family="unet", postprocess="watershed"), unet, False)
    with pytest.raises(ConfigError, match="mask_rcnn finds objects by itself"):
        choose_instance_method(Candidate(family="mask_rcnn", postprocess="watershed"), detector, True)


def test_the_candidates_of_the_docs_are_candidates(repo_root):
    (block,) = re.findall(r"```yaml\n(.*?)```", (repo_root / "docs/objects.md").read_text(), re.DOTALL)
    candidates = parse_params(block).candidates
    assert [choose_instance_method(c, family(c.family), True) for c in candidates.values()] == [
        "detections",
        "watershed",
        "distance",
    ]
    assert all(family_config(c) for c in candidates.values())


class Exact:
    """An engine that knows the classes of each image by its first pixel, and merges touching discs as any semantic model does."""

    name = "exact"

    def __init__(self, samples):
        self.samples = samples

    def __call__(self, batch):
        labels = self.samples[round(float(batch[0, 0, 0, 0]))].labels
        return 8.0 * (np.arange(2)[None, :, None, None] == labels[None, None]).astype(np.float32)


def test_settings_are_those_with_the_best_f1():
    """Against every setting of the grid tried one by one through `predict`; splitting pays where discs touch."""
    samples = []
    y, x = np.mgrid[:64, :96]
    for index in range(3):
        ids = np.zeros((64, 96), np.uint16)
        for number, column in enumerate((20, 37 + index, 70), 1):
            ids[((y - 30) ** 2 + (x - column) ** 2 <= 100) & (ids == 0)] = number
        labels = (ids > 0).astype(np.uint8)
        labels[2:4, 2:4] = 1  # a speck that is no object
        samples.append(Sample(f"t{index}", np.full((64, 96, 1), index, np.float32), labels, ids))
    table = ClassTable.from_names(["background", "cell"])
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    spec = SegmenterSpec(candidate="x", family="unet", classes=table, normalisation=plain, stride=1)
    segmenter = Segmenter(spec, Exact(samples))

    def f1(how):
        own, total = Segmenter(spec.model_copy(update={"postprocess": how}), segmenter.engine), None
        for sample in samples:
            said = own.predict(sample.image, instances=True).instances
            score = object_score(Objects.from_instances(sample.objects()), Objects.from_instances(said), 2)
            total = score if total is None else total + score
        return float(micro("dice", total.tallies[0]))

    reader = MemoryReader(samples)
    how, value = best_instance_settings(segmenter, reader, "watershed")
    assert value == pytest.approx(f1(how)) == 1.0 and how.min_size > 4
    whole, less = best_instance_settings(segmenter, reader, "components")
    assert less == pytest.approx(f1(whole)) and less < 1
    assert less == max(f1(Postprocess(method="components", min_size=m)) for m in (0, whole.min_size, 20, 60))


@pytest.mark.slow
def test_a_detector_is_planned_trained_and_loaded(reader, tmp_path):
    """A few steps: the plan pins anchors, training gives the same bytes twice, and the model is loaded as it was."""
    val = MemoryReader([discs(50), discs(51)])
    candidate = {"family": "mask_rcnn", "encoder": "resnet18", "encoder_weights": "none", "channels": 32, "hidden": 64}
    train = {"budget": "4 steps", "patch": 64, "batch": 2, "precision": "fp32", "channels_last": False}
    params = Params.model_validate({"candidates": {"m": candidate}, "train": train})
    plan = plan_on("m", params, fingerprint_of(reader, instances=True), reader, val)
    assert plan.postprocess == "detections" and len(plan.options["anchors"]) >= 1 and plan.options["first_stride"] == 4
    for name in ("one", "two"):
        train_on(plan, CLASSES, reader, val, tmp_path / name, tmp_path / f"live-{name}", tmp_path / f"checks-{name}")
    one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    spec = json.loads((tmp_path / "one/segmenter.json").read_text())
    assert spec["task"] == "instance" and spec["postprocess"]["method"] == "detections"
    segmenter = load_trained(tmp_path / "one")
    found = segmenter.predict(val[0].image)
    assert found.instances is not None and found.class_ids.shape == (96, 96)
    history = json.loads((tmp_path / "one/history.json").read_text())
    assert all(np.isfinite(entry["loss"]) for entry in history["train"])
