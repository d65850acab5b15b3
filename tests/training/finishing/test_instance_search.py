import numpy as np
import pytest

from segpipe.samples import IGNORE, Sample
from segpipe.training.finishing.instance_search import joined_classes


def sample(labels: list[int], objects: list[int]) -> Sample:
    shape = (1, len(labels))
    return Sample(
        "s",
        np.zeros((*shape, 1), np.uint8),
        np.array(labels, np.uint8).reshape(shape),
        np.array(objects, np.uint16).reshape(shape),
    )


@pytest.mark.parametrize(
    ("labels", "objects", "expected"),
    [
        ([1, 2, 1, 2, 0, 3], [1, 1, 2, 2, 0, 3], ((1, 2),)),  # cells with a nucleus each, and something else
        ([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], ()),  # every object of one class
        ([1, 2, 2, 3, 0, 0], [1, 1, 2, 2, 0, 0], ((1, 2, 3),)),  # by way of the second
        ([1, 1, 1, 1, 2, 1, 2, 2, 2, 2], [1, 2, 3, 4, 5, 5, 6, 7, 8, 9], ()),  # one in five is drawn carelessly
        ([1, 0, 2, 0, 1, IGNORE], [1, 1, 2, 2, 3, 3], ()),  # neither background nor what is ignored joins any
        ([0, 0], [0, 0], ()),
    ],
)
def test_classes_that_share_objects_belong_together(labels, objects, expected):
    assert joined_classes([sample(labels, objects)], 4) == expected


def test_objects_of_two_images_do_not_mix():
    one, other = sample([1, 1], [1, 1]), sample([2, 2], [1, 1])
    assert joined_classes([one, other], 4) == ()
