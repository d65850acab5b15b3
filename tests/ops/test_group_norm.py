import copy

import pytest
import torch

from segpipe.ops.group_norm import use_fast_group_norm
from segpipe.training.plan import StepSetting
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import make_plan

SHAPES = {"images": ((3, 8, 5, 7), torch.channels_last), "volumes": ((2, 8, 4, 6, 3), torch.channels_last_3d)}


def _gradients(layer, x, slope):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], slope.to(y.dtype))]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_each_group_is_normalised_by_itself_and_learns_as_torchs(kind, groups, affine, training):
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.GroupNorm(groups, 8, affine=affine)).train(training)
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter)
    torchs = copy.deepcopy(own)
    use_fast_group_norm(own)
    shape, layout = SHAPES[kind]
    across = torch.arange(1.0, 9).view(1, 8, *[1] * (len(shape) - 2))
    x = ((torch.randn(shape) + 2) * across).contiguous(memory_format=layout)
    slope = torch.randn(shape)
    found, expected = _gradients(own, x, slope), _gradients(torchs, x, slope)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert all(one.is_contiguous(memory_format=layout) for one in found[:2])
    assert own.state_dict().keys() == torchs.state_dict().keys() and isinstance(own[0], torch.nn.GroupNorm)


@pytest.mark.parametrize("bias", [True, False])
def test_in_bfloat16_it_is_nearly_as_precise_as_torchs(bias):
    torch.manual_seed(0)
    layer = torch.nn.GroupNorm(32, 128, affine=True)
    x = (torch.randn(4, 128, 24, 24) * 3 + 20 * bias).contiguous(memory_format=torch.channels_last)
    slope = torch.randn_like(x)
    exact = _gradients(layer, x.bfloat16().float(), slope.bfloat16().float())
    torchs = _gradients(layer, x.bfloat16(), slope)
    use_fast_group_norm(network := torch.nn.Sequential(layer))
    found = _gradients(network, x.bfloat16(), slope)
    for ours, theirs, true in zip(found, torchs, exact, strict=True):
        assert (ours - true).abs().mean() <= 1.5 * (theirs - true).abs().mean() + 1e-4 * true.abs().mean()
    assert found[0].dtype == torch.bfloat16


def test_other_layouts_and_shapes_are_left_to_torch():
    torch.manual_seed(0)
    layer = torch.nn.GroupNorm(2, 4)
    use_fast_group_norm(network := torch.nn.Sequential(layer))
    plain = torch.nn.GroupNorm(2, 4)
    for x in (torch.randn(2, 4, 5, 3), torch.randn(2, 4), torch.randn(2, 4, 6)):
        assert torch.equal(network(x), plain(x))


def test_a_step_makes_use_of_it():
    plan = make_plan(StepSetting(precision="fp32", channels_last=True), family="fpn")
    network = build_stepper(plan).network
    normalised = [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert normalised and {type(module).__module__ for module in normalised} == {"segpipe.ops.group_norm"}
