import copy

import pytest
import torch
from timm.layers import Conv2dSame

from segpipe.training.depthwise import in_float32

LAYERS = {
    "wide": lambda: torch.nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "strided": lambda: Conv2dSame(6, 6, 3, stride=2, groups=6),
    "dilated": lambda: torch.nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_slow_depthwise_convolution_computes_in_float32_between_layers_in_bfloat16(name):
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(2, 6, 12, 12).bfloat16()
    expected = layer(x.float())
    names, kind = list(layer.state_dict()), type(layer)
    in_float32(torch.nn.Sequential(layer))
    other = copy.deepcopy(layer)
    for one in (layer, other):
        with torch.autocast("cpu", torch.bfloat16):
            found = one(x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected.bfloat16())  # autocast's own result differs in its last bits
        assert list(one.state_dict()) == names and isinstance(one, kind)
    found.float().sum().backward()
    assert other.weight.grad.dtype == torch.float32 and layer.weight.grad is None


def test_other_convolutions_stay_as_they_are():
    plain = [torch.nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.nn.Conv2d(6, 4, 5), torch.nn.Conv2d(1, 1, 5)]
    in_float32(torch.nn.Sequential(*plain))
    assert {type(layer) for layer in plain} == {torch.nn.Conv2d}
