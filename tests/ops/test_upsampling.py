import copy

import pytest
import torch
from torch.testing import assert_close

from segpipe.ops import upsampling
from segpipe.ops.upsampling import use_fast_upsampling
from segpipe.training.plan import StepSetting
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import make_plan


@pytest.mark.parametrize("channels", [2, 3, 4, 9])
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("more_channels", [0, 5])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_outputs_and_gradients_equal_torchs(channels, corners, more_channels, layout):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Upsample(scale_factor=4, mode="bilinear", align_corners=corners))
    torchs = copy.deepcopy(ours)
    use_fast_upsampling(ours)
    x, other = torch.randn(2, channels, 5, 7), torch.randn(2, more_channels, 20, 28)
    output_gradient = torch.randn(2, channels + more_channels, 20, 28)
    results = []
    for network in (ours, torchs):
        leaf = x.clone().contiguous(memory_format=layout).requires_grad_()
        upsampled = network(leaf)
        assert network is torchs or channels >= 4 or upsampled.is_contiguous()  # few channels are not channels-last
        y = torch.cat([upsampled, other.contiguous(memory_format=layout)], 1)
        gradient = output_gradient.contiguous(memory_format=layout)
        results.append((y, *torch.autograd.grad(y, leaf, gradient)))
    for result, expected in zip(*results, strict=True):
        assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_a_strided_gradient_is_copied_to_the_memory_format_of_the_output(monkeypatch):
    ours = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2, mode="bilinear"))
    use_fast_upsampling(ours)
    calls, copy_gradient = [], upsampling._to_channels_last
    monkeypatch.setattr(
        upsampling,
        "_to_channels_last",
        lambda gradient: calls.append((gradient, copy_gradient(gradient))) or calls[-1][1],
    )
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.cat(
        [ours(x), torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)], 1
    ).square().sum().backward()
    ((before, after),) = calls
    assert not before.is_contiguous(memory_format=torch.channels_last)
    assert after.is_contiguous(memory_format=torch.channels_last)


def test_upsampling_by_repetition_is_not_replaced():
    layer = torch.nn.Upsample(scale_factor=2)
    use_fast_upsampling(layer)
    assert type(layer) is torch.nn.Upsample


def test_training_steps_use_it():
    network = build_stepper(
        make_plan(StepSetting(precision="fp32", channels_last=True), family="deeplabv3plus")
    ).network
    kinds = {type(module).__module__ for module in network.modules() if isinstance(module, torch.nn.Upsample)}
    assert kinds == {"segpipe.ops.upsampling"}
