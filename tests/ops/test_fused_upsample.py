import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segpipe.ops.fused_upsample import convolve_doubled, use_fused_upsampling
from tests.worlds.network_equivalence import assert_same_gradients_and_outputs
from tests.worlds.property_tests import examples

small = st.integers(1, 5)
FAMILIES = ["Unet", "UnetPlusPlus", "MAnet"]


@given(small, small, st.integers(0, 3), small, st.booleans(), st.booleans())
@examples(40)
def test_a_transposed_convolution_equals_a_convolution_of_doubled_features(
    height, width, skip_channels, out, biased, channels_last
):
    rng = torch.Generator().manual_seed(height * 100 + width * 10 + skip_channels)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    x, weight, bias = draw(2, 3, height, width), draw(out, 3 + skip_channels, 3, 3), draw(out) if biased else None
    skip = draw(2, skip_channels, 2 * height, 2 * width) if skip_channels else None
    leaves = [leaf for leaf in (x, weight, bias, skip) if leaf is not None]
    images = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    result = convolve_doubled(images, skip, weight, bias)
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(doubled if skip is None else torch.cat([doubled, skip], 1), weight, bias, padding=1)
    torch.testing.assert_close(result, expected)
    output_gradient = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(result, leaves, output_gradient),
        torch.autograd.grad(expected, leaves, output_gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_learns_the_same_and_predicts_the_same_bits(name):
    """Gradients of all parameters in float64, for images that are not square; inference is unchanged."""
    torch.manual_seed(0)
    plain = getattr(smp, name)("resnet18", encoder_weights=None, classes=3).double()
    torch.manual_seed(0)
    ours = use_fused_upsampling(getattr(smp, name)("resnet18", encoder_weights=None, classes=3).double())
    assert sum(type(module).__module__ == "segpipe.ops.fused_upsample" for module in ours.modules()) > 0
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    assert_same_gradients_and_outputs(plain, ours, images)


def test_blocks_that_do_not_double_by_repetition_are_not_replaced():
    network = use_fused_upsampling(smp.Unet("resnet18", encoder_weights=None, decoder_interpolation="bilinear"))
    assert not any(type(module).__module__ == "segpipe.ops.fused_upsample" for module in network.modules())


def test_features_that_are_not_half_as_large_are_resized_as_before():
    torch.manual_seed(0)
    plain = smp.Unet("resnet18", encoder_weights=None).decoder.blocks[0].train()
    x, skip = torch.randn(2, 512, 3, 3), torch.randn(2, 256, 5, 7)
    expected = plain(x, 5, 7, skip)
    assert torch.equal(use_fused_upsampling(plain)(x, 5, 7, skip), expected)
