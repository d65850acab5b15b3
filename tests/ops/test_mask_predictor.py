"""The predictor of masks, compared with torchvision's."""

import pytest
import torch
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from segpipe.ops.mask_predictor import FastMaskPredictor
from tests.worlds.network_equivalence import assert_same_gradients_and_outputs


def predictors(classes, hidden=6):
    torch.manual_seed(0)
    plain, ours = MaskRCNNPredictor(5, hidden, classes).double(), FastMaskPredictor(5, hidden, classes).double()
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_masks_and_gradients_equal_torchvisions(classes, layout):
    plain, ours = predictors(classes)
    results = []
    for predictor in (plain, ours):
        torch.manual_seed(1)
        features = torch.randn(7, 5, 4, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
        masks = predictor.train()(features)
        (masks * torch.randn(masks.shape)).sum().backward()
        results.append([masks, features.grad])
    assert results[0][0].shape == (7, classes, 8, 6)
    for expected, result in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)
    for predictor in (plain, ours):
        predictor.zero_grad()
    assert_same_gradients_and_outputs(plain, ours, torch.randn(7, 5, 4, 3, dtype=torch.float64))


def test_images_without_instances_have_no_masks():
    plain, ours = predictors(2)
    no_features = torch.zeros(0, 5, 14, 14, dtype=torch.float64)
    assert ours.train()(no_features).shape == plain(no_features).shape == (0, 2, 28, 28)


def test_training_computes_no_features_at_the_size_of_the_masks():
    """The transposed convolution is called in inference only."""
    _, ours = predictors(2)
    calls = []
    ours.conv5_mask.register_forward_hook(lambda *_: calls.append(1))
    ours.train()(torch.randn(2, 5, 4, 4, dtype=torch.float64))
    assert not calls
    ours.eval()(torch.randn(2, 5, 4, 4, dtype=torch.float64))
    assert calls
