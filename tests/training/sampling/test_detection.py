"""Training on instances: crops with targets, first weights, and a small training from end to end."""

import json
import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from segpipe.config import Params, parse_params
from segpipe.errors import MissingError
from segpipe.inference.trained_model import load_trained
from segpipe.models.detection.mask_rcnn import load_coco
from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
from segpipe.models.registry import build_network, family_config, get_family
from segpipe.samples import IGNORE
from segpipe.training.finishing.instance_search import choose_instance_method
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import batches
from segpipe.training.sampling.detection import InstanceCrops, detection_loss, target_of
from segpipe.training.train import train_on
from tests.worlds.detectors import SMALL, detector_plan, discs
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import CLASSES, fingerprint_of


@pytest.fixture(scope="module")
def reader():
    return MemoryReader([discs(i) for i in range(6)])


@pytest.mark.parametrize("strength", ["off", "medium", "strong"])
def test_targets_are_the_instances_of_their_crop(reader, strength):
    """Masks do not overlap, fill their boxes to the pixel, have one class, and lie where the image shows a disc."""
    crops = InstanceCrops(reader, detector_plan(augment=strength, free_orientation=True))
    count = 0
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
        count += len(masks)
    assert count > 30


def test_crops_follow_from_seed_and_position_and_make_batches(reader):
    plan = detector_plan()
    first, second = InstanceCrops(reader, plan)[7], InstanceCrops(reader, plan)[7]
    np.testing.assert_array_equal(first[0], second[0])
    assert all(torch.equal(first[1][k], second[1][k]) for k in first[1])
    images, targets = next(batches(InstanceCrops(reader, plan), plan.recipe, 0))
    assert images.shape == (2, 3, 64, 64) and len(targets) == 2 and set(targets[0]) == {"boxes", "labels", "masks"}


def test_targets_leave_out_what_is_not_an_instance():
    labels, ids = np.zeros((12, 12), np.uint16), np.zeros((12, 12), np.uint16)
    ids[0:3, 0:3], labels[0:3, 0:3] = 9, 1
    ids[4:6, 0:1], labels[4:6, 0:1] = 4, 1  # two pixels
    ids[8:12, 8:12] = 5  # of class 0
    ids[0:4, 6:12], labels[0:4, 6:12] = 6, 2
    labels[0:4, 10:12] = IGNORE
    target = target_of(labels, ids)
    assert target["labels"].tolist() == [2, 1] and target["boxes"].tolist() == [[6, 0, 10, 4], [0, 0, 3, 3]]
    assert target_of(labels * 0, ids * 0)["masks"].shape == (0, 12, 12)


def test_a_batch_without_instances_has_a_loss():
    network = build_network("mask_rcnn", MaskRcnnConfig.model_validate(SMALL), 3, 2, 0).train()
    nothing = target_of(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16))
    empty = detection_loss(network, (torch.randn(2, 3, 64, 64), [nothing, nothing]), torch.device("cpu"))
    assert empty.dtype == torch.float32 and torch.isfinite(empty)


def test_coco_weights_are_loaded_into_all_layers_of_their_shape():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    config = MaskRcnnConfig(encoder="resnet50", encoder_weights="none", channels=256, hidden=1024, mask_convs=4)
    network = build_network("mask_rcnn", config, 3, 2, 0)
    load_coco(network, state)
    mine = network.state_dict()
    loaded = {
        k for k in mine if torch.equal(mine[k], state.get(k.replace("backbone.encoder", "backbone.body"), mine[k] + 1))
    }
    not_loaded = {k.rsplit(".", 1)[0] for k in set(mine) - loaded if not k.endswith("num_batches_tracked")}
    assert not_loaded <= {f"roi_heads.box_predictor.{n}" for n in ("cls_score", "bbox_pred")} | {
        "roi_heads.mask_predictor.mask_fcn_logits"
    }
    with pytest.raises(ValidationError, match="COCO weights need `encoder: resnet50`"):
        MaskRcnnConfig(encoder_weights="coco")


def test_without_the_hub_the_error_names_the_alternatives(monkeypatch):
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(type(MaskRCNN_ResNet50_FPN_Weights.COCO_V1), "get_state_dict", offline)
    config = MaskRcnnConfig(encoder="resnet50", encoder_weights="coco")
    with pytest.raises(MissingError, match=r"no COCO weights for mask_rcnn: Name or service.*encoder_weights: auto"):
        build_network("mask_rcnn", config, 3, 2, 0)


def test_the_candidates_of_the_documentation_are_valid(repo_root):
    (block,) = re.findall(r"```yaml\n(.*?)```", (repo_root / "docs/objects.md").read_text(), re.DOTALL)
    candidates = parse_params(block).candidates
    assert [choose_instance_method(c, get_family(c.family), True) for c in candidates.values()] == [
        "detections",
        "watershed",
        "distance",
    ]
    assert all(family_config(c) for c in candidates.values())


@pytest.mark.slow
def test_a_detector_is_planned_trained_and_loaded(reader, tmp_path):
    """A few steps: the plan pins anchors, training gives the same bytes twice, and the model can be loaded."""
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
    prediction = segmenter.predict(val[0].image)
    assert prediction.instances is not None and prediction.class_ids.shape == (96, 96)
    history = json.loads((tmp_path / "one/history.json").read_text())
    assert all(np.isfinite(entry["loss"]) for entry in history["train"])
