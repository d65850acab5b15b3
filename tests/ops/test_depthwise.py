import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from timm.layers import Conv2dSame

from segpipe.ops.depthwise import depthwise, use_fast_depthwise
from tests.worlds.property_tests import examples

LAYERS = {
    "large": lambda: torch.nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
    "strided": lambda: torch.nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False),
    "dilated": lambda: torch.nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, bias=False),
    "with its own padding": lambda: Conv2dSame(6, 6, 3, stride=2, groups=6),
    "with a bias": lambda: torch.nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "even": lambda: torch.nn.Conv2d(6, 6, 2, stride=2, groups=6, bias=False),
    "several channels from each": lambda: torch.nn.Conv2d(6, 12, 5, padding=2, groups=6, bias=False),
    "with padding by name": lambda: torch.nn.Conv2d(6, 6, 5, padding="same", groups=6, bias=False),
    "with mirrored padding": lambda: torch.nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False, padding_mode="reflect"),
    "strided and dilated": lambda: torch.nn.Conv2d(6, 6, 3, stride=2, padding=2, dilation=2, groups=6, bias=False),
}


@examples(60)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    kernel=st.tuples(*[st.sampled_from([1, 3, 5, 7, 9])] * 2).filter(lambda edges: max(edges) > 1),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    channels_last=st.booleans(),
)
@example((12, 12), (5, 5), (2, 2), (1, 1), True)
@example((12, 7), (3, 3), (1, 1), (12, 6), True)
@example((13, 12), (5, 3), (1, 1), (7, 6), True)
@example((13, 12), (3, 9), (1, 1), (8, 3), False)
@example((12, 12), (7, 7), (1, 1), (2, 2), False)
def test_any_depthwise_convolution_and_its_gradients_equal_torchs(size, kernel, stride, dilation, channels_last):
    if max(dilation) > 1:
        stride = (1, 1)
    if min(kernel) < 3:
        kernel = (3, max(kernel))
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, *size, generator=rng), torch.randn(3, 1, *kernel, generator=rng)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))

    def gradients(function):
        leaves = [t.detach().clone().requires_grad_() for t in (x, weight)]
        y = function(*leaves)
        output_gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        return [y, *torch.autograd.grad(y, leaves, output_gradient)]

    ours = gradients(lambda x, weight: depthwise(x, weight, stride, dilation))
    expected = gradients(lambda x, weight: F.conv2d(x, weight, None, stride, padding, dilation, 3))
    for result, torchs in zip(ours, expected, strict=True):
        torch.testing.assert_close(result, torchs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_a_replaced_layer_keeps_bfloat16_and_has_the_same_gradients(name):
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(2, 6, 12, 12).bfloat16()
    exact, names, kind = copy.deepcopy(layer), list(layer.state_dict()), type(layer)
    expected = exact(x.float())
    output_gradient = torch.randn_like(expected)
    expected.backward(output_gradient)
    use_fast_depthwise(torch.nn.Sequential(layer))
    other = copy.deepcopy(layer)
    for one in (layer, other):
        with torch.autocast("cpu", torch.bfloat16):
            output = one(x)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.01)
        assert list(one.state_dict()) == names and isinstance(one, kind)
    output.backward(output_gradient.bfloat16())
    assert other.weight.grad.dtype == torch.float32 and layer.weight.grad is None
    torch.testing.assert_close(other.weight.grad, exact.weight.grad, atol=0.3, rtol=0.01)


def test_other_convolutions_are_not_replaced():
    plain = [torch.nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.nn.Conv2d(6, 4, 5), torch.nn.Conv2d(1, 1, 5)]
    use_fast_depthwise(torch.nn.Sequential(*plain))
    assert {type(layer) for layer in plain} == {torch.nn.Conv2d}
