"""Pictures of where two models disagree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segpipe.data.shards import ShardReader
from segpipe.evaluation.gallery.pictures import ERRORS, draw
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scoring import score_images
from segpipe.inference.segmenter import Segmenter
from segpipe.pages.components.disagreement import (
    ScoredModel,
    _layers,
    disagreement_picture,
    draw_disagreements,
    most_different,
)
from segpipe.samples import IGNORE, Instances, Prediction, Sample
from tests.worlds.evaluated_workspace import CLASSES, make_segmenter

MASKS = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2]))


def constant_model(name: str, class_ids: np.ndarray, answer: Instances | None = None) -> ScoredModel:
    """A model that always gives this answer."""
    predict = lambda image, spacing, instances: Prediction(class_ids, instances=answer)  # noqa: E731
    segmenter = SimpleNamespace(predict=predict, spec=SimpleNamespace(classes=CLASSES))
    return ScoredModel(name, cast(Scores, None), cast(Segmenter, segmenter))


def scored_model(name: str, errors: float, reader: ShardReader) -> ScoredModel:
    segmenter = make_segmenter(errors, name)
    images = score_images(segmenter, reader, name)
    return ScoredModel(name, Scores.collect(name, CLASSES.names, {}, images), segmenter)


def test_the_images_that_differ_most_are_drawn(reader: ShardReader) -> None:
    ours, theirs = scored_model("unet", 0.3, reader), scored_model("v0.1.0", 0.05, reader)
    difference = ours.scores.image_scores("iou.image.macro") - theirs.scores.image_scores("iou.image.macro")
    assert most_different(ours.scores, theirs.scores, 3) == np.argsort(difference, kind="stable")[:3].tolist()
    assert most_different(ours.scores, ours.scores, 3) == []
    images = draw_disagreements(ours, theirs, reader, 2)
    assert [image.key for image in images] == [
        ours.scores.keys[i] for i in most_different(ours.scores, theirs.scores, 2)
    ]
    assert {image.kind for image in images} == {"behind"}
    errors = ["errors of unet", "errors of v0.1.0"]
    assert list(images[0].layers) == ["image", "truth", "unet", "v0.1.0", *errors, "who is right"]
    assert all(layer.shape == (40, 52, 3) for layer in images[0].layers.values())
    assert (
        f"IoU {ours.scores.image_scores('iou.image.macro')[most_different(ours.scores, theirs.scores, 1)[0]]:.3f}"
        in images[0].note
    )


@given(arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, IGNORE])), MASKS, MASKS)
def test_colours_say_who_is_right(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
    picture = disagreement_picture(np.full((5, 6, 3), 128, np.uint8), truth, ours, theirs)
    grey = int(128 * 0.6 + 90)
    for pixel in np.ndindex(5, 6):
        t, a, b = truth[pixel], ours[pixel], theirs[pixel]
        red, green, blue = (int(v) for v in picture[pixel])
        if t == IGNORE or a == b:
            assert red == green == blue == grey
        elif a == t:
            assert blue > green > red, "blue: only ours is right"
        elif b == t:
            assert red > green > blue, "orange: only theirs is right"
        else:
            assert red > blue > green, "purple: both are wrong"


def test_three_planes_of_a_volume_are_drawn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (6, 8, 10), np.uint8)
    other = np.where(rng.random(truth.shape) < 0.3, 0, truth).astype(np.uint8)
    image = rng.random((6, 8, 10, 1)).astype(np.float32)
    sample = Sample("volume", image, truth, spacing=(2.0, 1.0, 1.0))
    layers = _layers(sample, (constant_model("a", truth), constant_model("b", other)))
    assert len({layer.shape for layer in layers.values()}) == 1
    height, width = layers["image"].shape[:2]
    assert width > 2 * height
    blue = (layers["who is right"][:, :, 2].astype(int) - layers["who is right"][:, :, 0]) > 60
    assert blue.any(), "a is right where b is not"
    orange = (layers["who is right"][:, :, 0].astype(int) - layers["who is right"][:, :, 2]) > 60
    assert not orange.any(), "b is never the only one that is right"


def test_instances_and_errors_are_drawn_as_in_the_rest_of_the_gallery() -> None:
    """Two true cells touch; the first model misses one of them, and the second merges it with the other."""
    truth, ids = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint16)
    truth[5:15, 5:25] = 1
    ids[5:15, 5:15], ids[5:15, 15:25] = 1, 2
    missed, whole = np.where(ids == 2, 0, truth).astype(np.uint8), (truth > 0).astype(np.uint16)
    models = (
        constant_model("a", missed, Instances.from_map(np.where(ids == 1, 1, 0), [1], [1.0])),
        constant_model("b", truth, Instances.from_map(whole, [1], [1.0])),
    )
    layers = _layers(Sample("c", np.full((20, 30, 1), 90, np.uint8), truth, ids), models)
    for name, answer, model in (("a", missed, models[0]), ("b", truth, models[1])):
        predicted_ids = model.segmenter.predict(None, None, True).instances.ids
        alone = draw(np.full((20, 30, 1), 90, np.uint8), truth, answer, CLASSES, instances=(ids, predicted_ids))
        np.testing.assert_array_equal(layers[name], alone["prediction"])
        np.testing.assert_array_equal(layers[f"errors of {name}"], alone["errors"])
        np.testing.assert_array_equal(layers["truth"], alone["truth"])
    between = (10, 15)
    assert (layers["truth"][between] != layers["b"][between]).any(), (
        "the border between two cells is a line in the truth alone"
    )
    right, lost = (np.array(kind.color) for kind in (ERRORS[0], ERRORS[2]))
    pixel = layers["errors of a"][10, 20].astype(int)
    assert np.abs(pixel - lost).sum() < np.abs(pixel - right).sum(), "a misses the second cell"
