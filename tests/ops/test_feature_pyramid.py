import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import strategies as st
from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock
from torch.nn.functional import conv2d

from segpipe.ops.feature_pyramid import convolve_level, use_fused_pyramid
from tests.worlds.network_equivalence import assert_same_gradients_and_outputs
from tests.worlds.property_tests import examples

small = st.integers(1, 4)


@given(small, small, small, small)
@examples(30)
def test_a_convolution_of_a_level_is_computed_without_the_level(height, width, skip_channels, out):
    rng = torch.Generator().manual_seed(height * 100 + width * 10 + skip_channels)
    torch.manual_seed(out)
    level = FPNBlock(3, skip_channels).double()
    above, skip, weight = (
        torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()
        for shape in ((2, 3, height, width), (2, skip_channels, 2 * height, 2 * width), (out, 3, 3, 3))
    )
    result = convolve_level(above, skip, level, weight)
    expected = conv2d(level(above, skip), weight, padding=1)
    torch.testing.assert_close(result, expected)
    output_gradient = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    leaves = [above, skip, weight, *level.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(result, leaves, output_gradient),
        torch.autograd.grad(expected, leaves, output_gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("merged", ["add", "cat"])
def test_a_network_learns_the_same_and_predicts_the_same_bits(merged):
    torch.manual_seed(0)
    plain = smp.FPN(
        "resnet18", encoder_weights=None, classes=3, decoder_merge_policy=merged, decoder_dropout=0.0
    ).double()
    ours = use_fused_pyramid(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    levels = []
    ours.decoder.p2.register_forward_hook(lambda level, *_: levels.append(level.training))
    assert_same_gradients_and_outputs(plain, ours, images)
    assert levels == [False]  # the finest level was computed in inference only


def test_a_pyramid_with_bilinear_interpolation_is_not_replaced():
    network = use_fused_pyramid(smp.FPN("resnet18", encoder_weights=None, decoder_interpolation="bilinear"))
    assert not any(type(module).__module__ == "segpipe.ops.feature_pyramid" for module in network.modules())
