"""The channel for the depth in an object: its target against brute force, its loss, and a training from end to end."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.config import Candidate, Params
from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import GRAPH_ENGINES
from segpipe.inference.postprocess import Postprocess, separate
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained import load_trained
from segpipe.models.registry import family
from segpipe.release.export.bundle_export import export_graph
from segpipe.samples import IGNORE, Sample
from segpipe.training.finishing.instance_search import choose_instance_method
from segpipe.training.losses import SegmentationLoss
from segpipe.training.planning.planner import plan_on
from segpipe.training.sampling.crops import Crops, batches
from segpipe.training.sampling.distance import DistanceCrops, DistanceVolumeCrops, LossWithDistance, normalised_distance
from segpipe.training.sampling.volume_crops import VolumeCrops
from segpipe.training.tasks import samples_of
from tests.training.sampling.test_volume_crops import plan_of
from tests.training.test_loop import run
from tests.worlds.tiny_training import MemoryReader, fingerprint_of, make_recipe
from tests.worlds.trainings import register, tiny_plan
from tests.worlds.volumes import VolumeReader, ellipsoid


def brute_force(labels, ids, spacing=None):
    """By its definition, object by object and pixel by pixel: borders are counted pixels of something else in the box of an object
    and one pixel around it."""
    found = np.zeros(labels.shape)
    places = np.stack(np.indices(labels.shape), -1)
    step = np.ones(labels.ndim) if spacing is None else np.array(spacing)
    for number in set(np.unique(ids[labels != IGNORE]).tolist()) - {0}:
        own = (ids == number) & (labels != IGNORE)
        if np.bincount(labels[own]).argmax() == 0:
            continue
        low, high = places[own].min(0) - 1, places[own].max(0) + 1
        near = ((places >= low) & (places <= high)).all(-1)
        outside = places[~own & (labels != IGNORE) & near] * step
        depth = [np.linalg.norm(outside - p * step, axis=1).min() if len(outside) else 1.0 for p in places[own]]
        found[own] = np.array(depth) / max(depth)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(9, 13), (1, 7), (5, 6, 7)]), st.sampled_from([0.0, 0.1, 0.6]))
def test_the_target_against_brute_force(seed, shape, ignored):
    """Touching, scattered, cut and one-pixel objects of several classes, some of none, between ignored pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, [-(-n // 3) for n in shape])
    ids = np.kron(coarse, np.ones((3,) * len(shape), int))[tuple(slice(n) for n in shape)].astype(np.uint16)
    ids[rng.random(shape) < 0.05] = 255
    labels = (np.where(ids == 5, 0, ids) % 3).astype(np.uint8)
    labels[rng.random(shape) < ignored] = IGNORE
    spacing = (3.0, 1.0, 0.5) if len(shape) == 3 else None
    found = normalised_distance(labels, ids, spacing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(labels, ids, spacing), atol=1e-6)


def test_the_target_of_objects_in_special_places():
    labels, ids = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint16)
    labels[2, 2], ids[2, 2] = 1, 7  # one pixel
    for number, columns in ((1, slice(8, 13)), (2, slice(13, 18))):  # touching, cut by the lower edge
        labels[6:, columns], ids[6:, columns] = 1, number
    found = normalised_distance(labels, ids)
    assert found[2, 2] == 1 and found[0, 0] == 0
    np.testing.assert_allclose(found[11, 8:18], np.array([1, 2, 3, 2, 1, 1, 2, 3, 2, 1]) / 3)
    np.testing.assert_allclose(
        found[6:, 10], np.array([1, 2, 3, 3, 3, 3]) / 3, err_msg="the edge of the crop is no border"
    )
    assert (normalised_distance(np.ones((4, 5), np.uint8), np.ones((4, 5), np.uint16)) == 1).all(), (
        "an object that fills the crop"
    )
    assert (normalised_distance(np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint16)) == 0).all(), (
        "class 0 has no objects"
    )
    labels[:, 12:14] = IGNORE
    assert normalised_distance(labels, ids)[9, 11] == 1, "nothing is known of what is ignored"


def bricks(seed: int, edge: int = 64) -> Sample:
    """Rows of bricks side by side: their mask is one bar without a waist; dark joints are drawn over their borders."""
    rng = np.random.default_rng(seed)
    labels, ids = np.zeros((edge, edge), np.uint8), np.zeros((edge, edge), np.uint16)
    number = 0
    for top in range(int(rng.integers(2, 6)), edge - 12, 18):
        left = int(rng.integers(0, 6))
        while left < edge - 14:
            width, number = int(rng.integers(9, 14)), number + 1
            place = np.s_[top : top + 10, left : left + width]
            labels[place], ids[place] = 1, number
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


def test_crops_are_those_without_a_distance(walls):
    plan = distance_plan(augment="strong", rare_crops=0.3)
    plain, crops = Crops(walls[0], plan), samples_of(walls[0], plan)
    assert isinstance(crops, DistanceCrops)
    for position in (0, 5, 11):
        (image, labels), (same, marks) = plain[position], crops[position]
        np.testing.assert_array_equal(image, same)
        np.testing.assert_array_equal(marks[0], labels)
        assert marks.shape == (2, 32, 32) and marks.dtype == np.uint8
        assert (marks[1][labels != 1] == 0).all() and marks[1].max() == 255
    images, known = next(batches(crops, plan.recipe, 0, 0, 1))
    assert images.shape == (2, 3, 32, 32) and known.shape == (2, 2, 32, 32) and known.dtype == torch.uint8


@pytest.mark.parametrize("strength", ["off", "medium"])
def test_crops_of_volumes_too(strength):
    """Every object is an ellipsoid of two classes; turned and brought to another voxel size, it still is."""
    whole = [ellipsoid(i, dtype="uint16") for i in range(2)]
    reader = VolumeReader(
        [Sample(s.key, s.image, s.labels, (s.labels > 0).astype(np.uint16) * 300, spacing=s.spacing) for s in whole]
    )
    plan = plan_of(spacing=(1.0, 1.0, 2.0), augment=strength, distance=True)
    crops = samples_of(reader, plan)
    assert isinstance(crops, DistanceVolumeCrops)
    for position in (0, 3):
        (image, labels), (same, marks) = VolumeCrops(reader, plan)[position], crops[position]
        np.testing.assert_array_equal(image, same)
        np.testing.assert_array_equal(marks[0], labels)
        expected = brute_force(labels, np.where((labels == 1) | (labels == 2), 300, 0), (1.0, 1.0, 2.0))
        np.testing.assert_allclose(marks[1] / 255, expected, atol=0.003)


def test_the_loss_is_that_of_classes_and_a_cross_entropy():
    recipe = make_recipe()
    classes = SegmentationLoss(recipe.class_weights, recipe.loss)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 7, generator=generator, requires_grad=True)
    marks = torch.stack(
        [
            torch.randint(0, 3, (2, 6, 7), generator=generator),
            torch.randint(0, 256, (2, 6, 7), generator=generator) * (torch.rand(2, 6, 7, generator=generator) < 0.4),
        ],
        1,
    )
    marks[0, 0, :2] = IGNORE
    marks = marks.to(torch.uint8)
    found = LossWithDistance(classes)(logits, marks)
    p, t, counted = logits[:, 3].sigmoid(), marks[:, 1] / 255, marks[:, 0] != IGNORE
    cost, parts = -(t * p.log() + (1 - t) * (1 - p).log()), [counted & (t > 0), counted & (t == 0)]
    by_hand = sum(cost[part].mean() for part in parts)
    assert found.item() == pytest.approx((classes(logits[:, :3], marks[:, 0]) + by_hand).item(), rel=1e-5)
    found.backward()
    assert (logits.grad[0, 3, :2] == 0).all(), "ignored pixels teach nothing"
    for part in parts:
        np.testing.assert_allclose(logits.grad[:, 3][part], ((p - t)[part] / part.sum()).detach(), atol=1e-7)
    nothing = torch.full_like(marks, IGNORE)
    assert LossWithDistance(classes)(logits, nothing).item() == 0


def test_who_can_learn_it():
    wanted = Candidate(family="unet", postprocess="distance")
    assert choose_instance_method(wanted, family("unet"), objects=True) == "distance"
    assert choose_instance_method(Candidate(family="unet"), family("unet"), objects=True) == "watershed", (
        "the default stays"
    )
    for of, objects, overlapping, said in (
        ("unet", False, False, r"no objects to choose .*found distance.*import objects"),
        ("kmeans", True, False, r"kmeans is fitted.*expected auto, watershed"),
        ("unet", True, True, r"classes overlap.*expected auto, watershed"),
        ("mask_rcnn", True, False, r"finds objects by itself.*expected auto"),
    ):
        with pytest.raises(ConfigError, match=said):
            choose_instance_method(wanted, family(of), objects, overlapping)


def test_a_plan_says_what_is_learned(walls):
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
    assert plan.recipe.distance and plan.outputs.channels == 4 and "how deep in its object" in plan.reasons["objects"]
    assert plain.outputs.channels == 3 and "distance" not in json.dumps(plain.exact), (
        "plans without it keep their identity"
    )
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


@pytest.fixture(scope="module")
def trained(walls, tmp_path_factory):
    """A network that has learned bricks; its batches came in two parts."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("distance")
    run(folder, distance_plan(steps=60, val_every=30, accumulate=2, batch=4, augment="light"), walls)
    return folder / "out"


def found_in(segmenter, sample, **changes):
    return segmenter.but(**changes).predict(sample.image, probabilities=True, instances=True)


def test_touching_objects_come_apart_where_their_mask_has_no_waist(trained, walls):
    segmenter = load_trained(trained)
    assert (
        segmenter.spec.distance and segmenter.spec.postprocess.method == "distance" and segmenter.spec.postprocess.h < 1
    )
    true = found = merged = 0
    for sample in walls[1].samples:
        said = found_in(segmenter, sample)
        assert (
            said.distance.shape == (64, 64)
            and said.distance.dtype == np.float32
            and said.probabilities.shape == (3, 64, 64)
        )
        true, found = true + len(sample.objects()), found + len(said.instances)
        merged += len(separate(said.class_ids, said.probabilities, Postprocess(method="watershed", h=0.5)))
    assert abs(found - true) <= 0.15 * true and merged < 0.6 * true


def test_every_way_to_predict_knows_the_channel(trained, walls, tmp_path):
    """Engines, tiles and mirror images give the network's own answer; class ids are the same with and without objects."""
    segmenter, sample = load_trained(trained), walls[1].samples[0]
    own = found_in(segmenter, sample)
    assert segmenter.predict(sample.image).distance is None
    np.testing.assert_array_equal(segmenter.predict(sample.image).class_ids, own.class_ids)
    export_graph(segmenter, tmp_path / "model.onnx")
    for engine in ("onnxruntime", "openvino"):
        other = found_in(Segmenter(segmenter.spec, GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1)), sample)
        np.testing.assert_allclose(other.distance, own.distance, atol=1e-3)
        assert len(other.instances) == len(own.instances) and (other.class_ids == own.class_ids).mean() > 0.999
    tiled = found_in(segmenter, sample, tile=48, overlap=24)
    np.testing.assert_allclose(tiled.distance[8:-8, 8:-8], own.distance[8:-8, 8:-8], atol=0.05)
    mirrored = found_in(segmenter, sample, tta="mirror").distance
    flipped = found_in(segmenter, Sample("f", sample.image[:, ::-1].copy())).distance[:, ::-1]
    np.testing.assert_allclose(mirrored, (own.distance + flipped) / 2, atol=1e-5)
    warm = found_in(segmenter, sample, temperature=2.0)
    np.testing.assert_array_equal(warm.instances.ids, own.instances.ids)
    np.testing.assert_array_equal(warm.distance, own.distance)


def test_an_older_model_has_no_such_channel(trained):
    content = json.loads((trained / "segmenter.json").read_text())
    assert content.pop("distance") is True
    older = SegmenterSpec.model_validate(content | {"postprocess": {"method": "watershed"}})
    assert not older.distance and older.outputs.channels == 3 and "distance" not in json.loads(older.model_dump_json())
