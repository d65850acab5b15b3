"""The settings of a detector that follow from the training instances."""

import pytest
from scipy import ndimage

from segpipe.errors import ConfigError
from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
from segpipe.samples import Sample
from segpipe.training.planning.detector_recipe import fit_to_instances
from tests.worlds.detectors import discs
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draft_of


@pytest.fixture(scope="module")
def reader():
    return MemoryReader([discs(i) for i in range(6)])


def test_anchors_span_the_sizes_of_instances(reader):
    draft = draft_of(reader, "mask_rcnn")
    config = fit_to_instances(draft, MaskRcnnConfig())
    boxes = [b for s in reader.samples for b in ndimage.find_objects(s.instances) if b]
    edges = sorted(((b[0].stop - b[0].start) * (b[1].stop - b[1].start)) ** 0.5 for b in boxes)
    assert edges[0] - 1 <= config.anchors[0] <= config.anchors[-1] <= edges[-1] + 1
    assert config.first_stride == 4 and config.detections == 100 and "pixels from stride 4" in draft.reasons["anchors"]


def test_settings_that_are_set_are_kept(reader):
    preset = MaskRcnnConfig(anchors=(7, 70), first_stride=8, detections=9)
    config = fit_to_instances(draft_of(reader, "mask_rcnn"), preset)
    assert (config.anchors, config.first_stride, config.detections) == ((7, 70), 8, 9)


def test_a_dataset_without_instances_is_refused(reader):
    images = MemoryReader([Sample("a", s.image, s.labels) for s in reader.samples])
    with pytest.raises(ConfigError, match="the training images have none"):
        fit_to_instances(draft_of(images, "mask_rcnn"), MaskRcnnConfig())
