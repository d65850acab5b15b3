"""The choice of a method that separates instances, and of its settings."""

import numpy as np
import pytest

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.metrics import micro
from segpipe.metrics.instances import InstanceMasks, count_instances
from segpipe.models.registry import get_family
from segpipe.samples import IGNORE, ClassTable, Sample
from segpipe.training.finishing.instance_search import best_instance_settings, choose_instance_method, joined_classes
from tests.worlds.readers import MemoryReader


def sample(labels: list[int], instances: list[int]) -> Sample:
    shape = (1, len(labels))
    return Sample(
        "s",
        np.zeros((*shape, 1), np.uint8),
        np.array(labels, np.uint8).reshape(shape),
        np.array(instances, np.uint16).reshape(shape),
    )


@pytest.mark.parametrize(
    ("labels", "instances", "expected"),
    [
        ([1, 2, 1, 2, 0, 3], [1, 1, 2, 2, 0, 3], ((1, 2),)),  # two cells with a nucleus each, and another class
        ([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], ()),  # each instance has one class
        ([1, 2, 2, 3, 0, 0], [1, 1, 2, 2, 0, 0], ((1, 2, 3),)),  # through the second class
        (
            [1, 1, 1, 1, 2, 1, 2, 2, 2, 2],
            [1, 2, 3, 4, 5, 5, 6, 7, 8, 9],
            (),
        ),  # one in five instances is labelled inaccurately
        ([1, 0, 2, 0, 1, IGNORE], [1, 1, 2, 2, 3, 3], ()),  # neither background nor ignored pixels join classes
        ([0, 0], [0, 0], ()),
    ],
)
def test_classes_that_share_instances_belong_together(labels, instances, expected):
    assert joined_classes([sample(labels, instances)], 4) == expected


def test_instances_of_two_images_are_not_mixed_up():
    one, other = sample([1, 1], [1, 1]), sample([2, 2], [1, 1])
    assert joined_classes([one, other], 4) == ()


def test_the_method_follows_from_family_and_data():
    unet, detector = get_family("unet"), get_family("mask_rcnn")
    assert choose_instance_method(Candidate(family="unet"), unet, True) == "watershed"
    assert choose_instance_method(Candidate(family="unet"), unet, False) is None
    assert choose_instance_method(Candidate(family="unet", postprocess="off"), unet, True) is None
    assert choose_instance_method(Candidate(family="unet", postprocess="components"), unet, True) == "components"
    assert choose_instance_method(Candidate(family="mask_rcnn"), detector, True) == "detections"
    with pytest.raises(ConfigError, match="no instances on which"):
        choose_instance_method(Candidate(family="unet", postprocess="watershed"), unet, False)
    with pytest.raises(ConfigError, match="mask_rcnn finds instances by itself"):
        choose_instance_method(Candidate(family="mask_rcnn", postprocess="watershed"), detector, True)


class Exact:
    """An engine that predicts the true classes of an image, which it recognises by its first pixel; touching discs are merged."""

    name = "exact"

    def __init__(self, samples):
        self.samples = samples

    def __call__(self, batch):
        labels = self.samples[round(float(batch[0, 0, 0, 0]))].labels
        return 8.0 * (np.arange(2)[None, :, None, None] == labels[None, None]).astype(np.float32)


def test_settings_are_those_with_the_best_f1():
    """Compared with settings of the grid applied by `predict`; splitting improves the score, because discs touch."""
    samples = []
    y, x = np.mgrid[:64, :96]
    for index in range(3):
        ids = np.zeros((64, 96), np.uint16)
        for number, column in enumerate((20, 37 + index, 70), 1):
            ids[((y - 30) ** 2 + (x - column) ** 2 <= 100) & (ids == 0)] = number
        labels = (ids > 0).astype(np.uint8)
        labels[2:4, 2:4] = 1  # a speck that is not an instance
        samples.append(Sample(f"t{index}", np.full((64, 96, 1), index, np.float32), labels, ids))
    table = ClassTable.from_names(["background", "cell"])
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    spec = SegmenterSpec(candidate="x", family="unet", classes=table, normalisation=plain, stride=1)
    segmenter = Segmenter(spec, Exact(samples))

    def f1(postprocess):
        with_settings = Segmenter(spec.model_copy(update={"postprocess": postprocess}), segmenter.engine)
        total = None
        for sample in samples:
            predicted = with_settings.predict(sample.image, instances=True).instances
            score = count_instances(
                InstanceMasks.from_instances(sample.true_instances()), InstanceMasks.from_instances(predicted), 2
            )
            total = score if total is None else total + score
        return float(micro("dice", total.tallies[0]))

    reader = MemoryReader(samples)
    watershed, watershed_f1 = best_instance_settings(segmenter, reader, "watershed")
    assert watershed_f1 == pytest.approx(f1(watershed)) == 1.0 and watershed.min_size > 4
    components, components_f1 = best_instance_settings(segmenter, reader, "components")
    assert components_f1 == pytest.approx(f1(components)) and components_f1 < 1
    sizes = (0, components.min_size, 20, 60)
    assert components_f1 == max(f1(Postprocess(method="components", min_size=size)) for size in sizes)


def test_a_distance_is_learned_by_networks_for_instances_that_do_not_overlap():
    candidate = Candidate(family="unet", postprocess="distance")
    assert choose_instance_method(candidate, get_family("unet"), has_instances=True) == "distance"


@pytest.mark.parametrize(
    ("name", "has_instances", "overlapping", "message"),
    [
        ("unet", False, False, r"no instances on which .*found distance.*import instances"),
        ("kmeans", True, False, r"kmeans is a classical family.*expected auto, watershed"),
        ("unet", True, True, r"overlapping classes would overlap too.*expected auto, watershed"),
        ("mask_rcnn", True, False, r"finds instances by itself.*expected auto"),
    ],
)
def test_a_distance_that_cannot_be_learned_is_refused(name, has_instances, overlapping, message):
    candidate = Candidate(family="unet", postprocess="distance")
    with pytest.raises(ConfigError, match=message):
        choose_instance_method(candidate, get_family(name), has_instances, overlapping)
