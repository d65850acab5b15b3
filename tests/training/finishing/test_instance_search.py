import numpy as np
import pytest

from segpipe.samples import IGNORE, Sample
from segpipe.training.finishing.instance_search import joined_classes


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
