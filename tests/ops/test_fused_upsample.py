import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.ops.fused_upsample import convolve_doubled, use_fused_upsampling
from tests.worlds.reference_networks import learn_and_answer_alike

few = st.integers(1, 5)
FAMILIES = ["Unet", "UnetPlusPlus", "MAnet"]


@given(few, few, st.integers(0, 3), few, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_transposed_convolution_is_a_convolution_of_doubled_features(height, width, beside, out, biased, last):
    rng = torch.Generator().manual_seed(height * 100 + width * 10 + beside)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    x, weight, bias = draw(2, 3, height, width), draw(out, 3 + beside, 3, 3), draw(out) if biased else None
    skip = draw(2, beside, 2 * height, 2 * width) if beside else None
    leaves = [leaf for leaf in (x, weight, bias, skip) if leaf is not None]
    given_x = x.contiguous(memory_format=torch.channels_last) if last else x
    found = convolve_doubled(given_x, skip, weight, bias)
    wide = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(wide if skip is None else torch.cat([wide, skip], 1), weight, bias, padding=1)
    torch.testing.assert_close(found, expected)
    slope = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, slope), torch.autograd.grad(expected, leaves, slope), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_learns_what_it_would_and_answers_bit_by_bit_as_it_would(name):
    """Gradients of all parameters in float64, at a size that is no square; what is exported is the network as it was."""
    torch.manual_seed(0)
    plain = getattr(smp, name)("resnet18", encoder_weights=None, classes=3).double()
    torch.manual_seed(0)
    ours = use_fused_upsampling(getattr(smp, name)("resnet18", encoder_weights=None, classes=3).double())
    assert sum(type(module).__module__ == "segpipe.ops.fused_upsample" for module in ours.modules()) > 0
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    learn_and_answer_alike(plain, ours, images)


def test_blocks_that_do_not_double_by_repetition_stay_as_they_are():
    network = use_fused_upsampling(smp.Unet("resnet18", encoder_weights=None, decoder_interpolation="bilinear"))
    assert not any(type(module).__module__ == "segpipe.ops.fused_upsample" for module in network.modules())


def test_features_that_are_not_half_as_large_are_resized_as_ever():
    torch.manual_seed(0)
    plain = smp.Unet("resnet18", encoder_weights=None).decoder.blocks[0].train()
    x, skip = torch.randn(2, 512, 3, 3), torch.randn(2, 256, 5, 7)
    expected = plain(x, 5, 7, skip)
    assert torch.equal(use_fused_upsampling(plain)(x, 5, 7, skip), expected)
