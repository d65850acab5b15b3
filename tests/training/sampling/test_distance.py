"""The channel for the depth in an instance: its target compared with brute force, its loss, and a training from end to end."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import Params
from segpipe.inference.engines.engine import GRAPH_ENGINES
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.postprocess import Postprocess, separate
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_model import load_trained
from segpipe.samples import IGNORE, Sample
from segpipe.training.losses import SegmentationLoss
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import Crops, batches
from segpipe.training.sampling.distance import DistanceCrops, DistanceVolumeCrops, LossWithDistance, normalised_distance
from segpipe.training.sampling.volume_crops import VolumeCrops
from segpipe.training.tasks import samples_of
from tests.training.test_train import run
from tests.worlds.property_tests import examples
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import fingerprint_of, make_recipe
from tests.worlds.trainings import register, tiny_plan
from tests.worlds.volumes import ellipsoid, volume_plan


def brute_force(labels, ids, spacing=None):
    """By its definition, pixel by pixel: the border of an instance is formed by counted pixels outside it, at most one pixel from its
    box."""
    distance = np.zeros(labels.shape)
    positions = np.stack(np.indices(labels.shape), -1)
    step = np.ones(labels.ndim) if spacing is None else np.array(spacing)
    for number in set(np.unique(ids[labels != IGNORE]).tolist()) - {0}:
        instance = (ids == number) & (labels != IGNORE)
        if np.bincount(labels[instance]).argmax() == 0:
            continue
        low, high = positions[instance].min(0) - 1, positions[instance].max(0) + 1
        near = ((positions >= low) & (positions <= high)).all(-1)
        outside = positions[~instance & (labels != IGNORE) & near] * step
        depth = [np.linalg.norm(outside - p * step, axis=1).min() if len(outside) else 1.0 for p in positions[instance]]
        distance[instance] = np.array(depth) / max(depth)
    return distance


@examples(60)
@given(st.integers(0, 10**6), st.sampled_from([(9, 13), (1, 7), (5, 6, 7)]), st.sampled_from([0.0, 0.1, 0.6]))
def test_the_target_equals_brute_force(seed, shape, ignored):
    """Touching, scattered, cut and one-pixel instances of several classes, some of class 0, between ignored pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, [-(-n // 3) for n in shape])
    ids = np.kron(coarse, np.ones((3,) * len(shape), int))[tuple(slice(n) for n in shape)].astype(np.uint16)
    ids[rng.random(shape) < 0.05] = 255
    labels = (np.where(ids == 5, 0, ids) % 3).astype(np.uint8)
    labels[rng.random(shape) < ignored] = IGNORE
    spacing = (3.0, 1.0, 0.5) if len(shape) == 3 else None
    distance = normalised_distance(labels, ids, spacing)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, brute_force(labels, ids, spacing), atol=1e-6)


def test_the_target_of_special_instances():
    labels, ids = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint16)
    labels[2, 2], ids[2, 2] = 1, 7  # one pixel
    for number, columns in ((1, slice(8, 13)), (2, slice(13, 18))):  # touching, cut by the lower edge
        labels[6:, columns], ids[6:, columns] = 1, number
    distance = normalised_distance(labels, ids)
    assert distance[2, 2] == 1 and distance[0, 0] == 0
    np.testing.assert_allclose(distance[11, 8:18], np.array([1, 2, 3, 2, 1, 1, 2, 3, 2, 1]) / 3)
    np.testing.assert_allclose(
        distance[6:, 10], np.array([1, 2, 3, 3, 3, 3]) / 3, err_msg="the edge of the crop is not a border"
    )
    assert (normalised_distance(np.ones((4, 5), np.uint8), np.ones((4, 5), np.uint16)) == 1).all(), (
        "an instance that fills the crop"
    )
    assert (normalised_distance(np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint16)) == 0).all(), (
        "class 0 has no instances"
    )
    labels[:, 12:14] = IGNORE
    assert normalised_distance(labels, ids)[9, 11] == 1, "ignored pixels are unknown"


def bricks(seed: int, edge: int = 64) -> Sample:
    """Rows of adjacent bricks: their mask is a bar without a waist, and the image is darker at their borders."""
    rng = np.random.default_rng(seed)
    labels, ids = np.zeros((edge, edge), np.uint8), np.zeros((edge, edge), np.uint16)
    number = 0
    for top in range(int(rng.integers(2, 6)), edge - 12, 18):
        left = int(rng.integers(0, 6))
        while left < edge - 14:
            width, number = int(rng.integers(9, 14)), number + 1
            brick = np.s_[top : top + 10, left : left + width]
            labels[brick], ids[brick] = 1, number
            left += width
    image = 40 + 180.0 * normalised_distance(labels, ids)
    return Sample(
        f"b{seed}",
        np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)[..., None].repeat(3, 2),
        labels,
        ids,
    )


@pytest.fixture(scope="module")
def walls():
    return MemoryReader([bricks(i) for i in range(6)]), MemoryReader([bricks(100 + i) for i in range(3)])


def distance_plan(**recipe):
    plan = tiny_plan({"width": 16}, distance=True, learning_rate=0.02, **recipe)
    return plan.model_copy(update={"postprocess": "distance"})


def test_crops_equal_those_without_a_distance(walls):
    plan = distance_plan(augment="strong", rare_crops=0.3)
    plain, crops = Crops(walls[0], plan), samples_of(walls[0], plan)
    assert isinstance(crops, DistanceCrops)
    for position in (0, 5, 11):
        (image, labels), (same_image, planes) = plain[position], crops[position]
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(planes[0], labels)
        assert planes.shape == (2, 32, 32) and planes.dtype == np.uint8
        assert (planes[1][labels != 1] == 0).all() and planes[1].max() == 255
    images, planes = next(batches(crops, plan.recipe, 0, 0, 1))
    assert images.shape == (2, 3, 32, 32) and planes.shape == (2, 2, 32, 32) and planes.dtype == torch.uint8


@pytest.mark.parametrize("strength", ["off", "medium"])
def test_crops_of_volumes_have_a_distance(strength):
    """Every instance is an ellipsoid of two classes, also after rotation and resampling."""
    whole = [ellipsoid(i, dtype="uint16") for i in range(2)]
    reader = MemoryReader(
        [Sample(s.key, s.image, s.labels, (s.labels > 0).astype(np.uint16) * 300, spacing=s.spacing) for s in whole]
    )
    plan = volume_plan(spacing=(1.0, 1.0, 2.0), augment=strength, distance=True)
    crops = samples_of(reader, plan)
    assert isinstance(crops, DistanceVolumeCrops)
    for position in (0, 3):
        (image, labels), (same_image, planes) = VolumeCrops(reader, plan)[position], crops[position]
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(planes[0], labels)
        expected = brute_force(labels, np.where((labels == 1) | (labels == 2), 300, 0), (1.0, 1.0, 2.0))
        np.testing.assert_allclose(planes[1] / 255, expected, atol=0.003)


def test_the_loss_is_that_of_the_classes_plus_a_cross_entropy():
    recipe = make_recipe()
    class_loss = SegmentationLoss(recipe.class_weights, recipe.loss)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 7, generator=generator, requires_grad=True)
    planes = torch.stack(
        [
            torch.randint(0, 3, (2, 6, 7), generator=generator),
            torch.randint(0, 256, (2, 6, 7), generator=generator) * (torch.rand(2, 6, 7, generator=generator) < 0.4),
        ],
        1,
    )
    planes[0, 0, :2] = IGNORE
    planes = planes.to(torch.uint8)
    loss = LossWithDistance(class_loss)(logits, planes)
    p, t, counted = logits[:, 3].sigmoid(), planes[:, 1] / 255, planes[:, 0] != IGNORE
    entropy, parts = -(t * p.log() + (1 - t) * (1 - p).log()), [counted & (t > 0), counted & (t == 0)]
    expected = sum(entropy[part].mean() for part in parts)
    assert loss.item() == pytest.approx((class_loss(logits[:, :3], planes[:, 0]) + expected).item(), rel=1e-5)
    loss.backward()
    assert (logits.grad[0, 3, :2] == 0).all(), "ignored pixels have no gradient"
    for part in parts:
        np.testing.assert_allclose(logits.grad[:, 3][part], ((p - t)[part] / part.sum()).detach(), atol=1e-7)
    all_ignored = torch.full_like(planes, IGNORE)
    assert LossWithDistance(class_loss)(logits, all_ignored).item() == 0


def test_a_plan_for_a_distance_has_one_more_channel(walls):
    register()
    params = Params.model_validate(
        {
            "train": {
                "budget": "3 steps",
                "batch": 2,
                "patch": 32,
                "augment": "off",
                "precision": "fp32",
                "channels_last": False,
            },
            "candidates": {"tiny": {"family": "tiny", "postprocess": "distance"}},
        }
    )
    fingerprint = fingerprint_of(walls[0], instances=True)
    plan, plain = plan_on("tiny", params, fingerprint, *walls), tiny_plan()
    assert (
        plan.recipe.distance
        and plan.outputs.channels == 4
        and "how deep inside its instance" in plan.reasons["objects"]
    )
    assert plain.outputs.channels == 3 and "distance" not in json.dumps(plain.exact), (
        "plans without it keep their identity"
    )
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


@pytest.fixture(scope="module")
def trained(walls, tmp_path_factory):
    """The model of a network trained on bricks, with batches in two parts."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("distance")
    run(folder, distance_plan(steps=60, val_every=30, accumulate=2, batch=4, augment="light"), walls)
    return folder / "out"


def predict(segmenter, sample, **changes):
    return segmenter.with_changes(**changes).predict(sample.image, probabilities=True, instances=True)


def test_touching_instances_without_a_waist_are_separated(trained, walls):
    segmenter = load_trained(trained)
    assert (
        segmenter.spec.distance and segmenter.spec.postprocess.method == "distance" and segmenter.spec.postprocess.h < 1
    )
    true_count = predicted_count = watershed_count = 0
    for sample in walls[1].samples:
        prediction = predict(segmenter, sample)
        assert (
            prediction.distance.shape == (64, 64)
            and prediction.distance.dtype == np.float32
            and prediction.probabilities.shape == (3, 64, 64)
        )
        true_count, predicted_count = (
            true_count + len(sample.true_instances()),
            predicted_count + len(prediction.instances),
        )
        watershed = Postprocess(method="watershed", h=0.5)
        watershed_count += len(separate(prediction.class_ids, prediction.probabilities, watershed))
    assert abs(predicted_count - true_count) <= 0.15 * true_count and watershed_count < 0.6 * true_count


def test_every_way_to_predict_uses_the_channel(trained, walls, tmp_path):
    """Engines, tiles and mirror images agree with the network; class ids are the same with and without instances."""
    segmenter, sample = load_trained(trained), walls[1].samples[0]
    direct = predict(segmenter, sample)
    assert segmenter.predict(sample.image).distance is None
    np.testing.assert_array_equal(segmenter.predict(sample.image).class_ids, direct.class_ids)
    export_graph(segmenter, tmp_path / "model.onnx")
    for engine in ("onnxruntime", "openvino"):
        other = predict(Segmenter(segmenter.spec, GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1)), sample)
        np.testing.assert_allclose(other.distance, direct.distance, atol=1e-3)
        assert len(other.instances) == len(direct.instances) and (other.class_ids == direct.class_ids).mean() > 0.999
    tiled = predict(segmenter, sample, tile=48, overlap=24)
    np.testing.assert_allclose(tiled.distance[8:-8, 8:-8], direct.distance[8:-8, 8:-8], atol=0.05)
    mirrored = predict(segmenter, sample, tta="mirror").distance
    flipped = predict(segmenter, Sample("f", sample.image[:, ::-1].copy())).distance[:, ::-1]
    np.testing.assert_allclose(mirrored, (direct.distance + flipped) / 2, atol=1e-5)
    calibrated = predict(segmenter, sample, temperature=2.0)
    np.testing.assert_array_equal(calibrated.instances.ids, direct.instances.ids)
    np.testing.assert_array_equal(calibrated.distance, direct.distance)


def test_an_older_model_has_no_such_channel(trained):
    content = json.loads((trained / "segmenter.json").read_text())
    assert content.pop("distance") is True
    older = SegmenterSpec.model_validate(content | {"postprocess": {"method": "watershed"}})
    assert not older.distance and older.outputs.channels == 3 and "distance" not in json.loads(older.model_dump_json())
