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
@pytest.mark.parametrize("beside", [0, 5])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_it_says_and_learns_what_torchs_does(channels, corners, beside, layout):
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.Upsample(scale_factor=4, mode="bilinear", align_corners=corners))
    torchs = copy.deepcopy(own)
    use_fast_upsampling(own)
    x, other = torch.randn(2, channels, 5, 7), torch.randn(2, beside, 20, 28)
    slope = torch.randn(2, channels + beside, 20, 28)
    found = []
    for network in (own, torchs):
        leaf = x.clone().contiguous(memory_format=layout).requires_grad_()
        drawn = network(leaf)
        assert network is torchs or channels >= 4 or drawn.is_contiguous()  # few channels lie one after another
        y = torch.cat([drawn, other.contiguous(memory_format=layout)], 1)
        found.append((y, *torch.autograd.grad(y, leaf, slope.contiguous(memory_format=layout))))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_gradient_that_comes_in_strides_is_laid_as_the_output_was(monkeypatch):
    own = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2, mode="bilinear"))
    use_fast_upsampling(own)
    seen, lay = [], upsampling._channels_last
    monkeypatch.setattr(upsampling, "_channels_last", lambda slope: seen.append((slope, lay(slope))) or seen[-1][1])
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.cat(
        [own(x), torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)], 1
    ).square().sum().backward()
    ((before, after),) = seen
    assert not before.is_contiguous(memory_format=torch.channels_last)
    assert after.is_contiguous(memory_format=torch.channels_last)


def test_upsampling_by_repetition_stays_as_it_is():
    layer = torch.nn.Upsample(scale_factor=2)
    use_fast_upsampling(layer)
    assert type(layer) is torch.nn.Upsample


def test_a_step_makes_use_of_it():
    network = build_stepper(
        make_plan(StepSetting(precision="fp32", channels_last=True), family="deeplabv3plus")
    ).network
    kinds = {type(module).__module__ for module in network.modules() if isinstance(module, torch.nn.Upsample)}
    assert kinds == {"segpipe.ops.upsampling"}
