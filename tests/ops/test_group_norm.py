import copy

import pytest
import torch

from segpipe.ops.group_norm import use_fast_group_norm
from segpipe.training.plan import StepSetting
from segpipe.training.step import build_stepper
from tests.worlds.network_equivalence import output_and_gradients
from tests.worlds.tiny_training import make_plan

SHAPES = {"images": ((3, 8, 5, 7), torch.channels_last), "volumes": ((2, 8, 4, 6, 3), torch.channels_last_3d)}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_equal_torchs(kind, groups, affine, training):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.GroupNorm(groups, 8, affine=affine)).train(training)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    torchs = copy.deepcopy(ours)
    use_fast_group_norm(ours)
    shape, layout = SHAPES[kind]
    scale_by_channel = torch.arange(1.0, 9).view(1, 8, *[1] * (len(shape) - 2))
    x = ((torch.randn(shape) + 2) * scale_by_channel).contiguous(memory_format=layout)
    output_gradient = torch.randn(shape)
    results, expected = output_and_gradients(ours, x, output_gradient), output_and_gradients(torchs, x, output_gradient)
    for result, other in zip(results, expected, strict=True):
        torch.testing.assert_close(result, other, atol=2e-5, rtol=1e-4)
    assert all(result.is_contiguous(memory_format=layout) for result in results[:2])
    assert ours.state_dict().keys() == torchs.state_dict().keys() and isinstance(ours[0], torch.nn.GroupNorm)


@pytest.mark.parametrize("bias", [True, False])
def test_bfloat16_is_nearly_as_precise_as_torchs(bias):
    torch.manual_seed(0)
    layer = torch.nn.GroupNorm(32, 128, affine=True)
    x = (torch.randn(4, 128, 24, 24) * 3 + 20 * bias).contiguous(memory_format=torch.channels_last)
    output_gradient = torch.randn_like(x)
    exact = output_and_gradients(layer, x.bfloat16().float(), output_gradient.bfloat16().float())
    torchs = output_and_gradients(layer, x.bfloat16(), output_gradient)
    use_fast_group_norm(network := torch.nn.Sequential(layer))
    results = output_and_gradients(network, x.bfloat16(), output_gradient)
    for result, other, true in zip(results, torchs, exact, strict=True):
        assert (result - true).abs().mean() <= 1.5 * (other - true).abs().mean() + 1e-4 * true.abs().mean()
    assert results[0].dtype == torch.bfloat16


def test_other_layouts_and_shapes_are_left_to_torch():
    torch.manual_seed(0)
    layer = torch.nn.GroupNorm(2, 4)
    use_fast_group_norm(network := torch.nn.Sequential(layer))
    plain = torch.nn.GroupNorm(2, 4)
    for x in (torch.randn(2, 4, 5, 3), torch.randn(2, 4), torch.randn(2, 4, 6)):
        assert torch.equal(network(x), plain(x))


def test_training_steps_use_it():
    plan = make_plan(StepSetting(precision="fp32", channels_last=True), family="fpn")
    network = build_stepper(plan).network
    layers = [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert layers and {type(module).__module__ for module in layers} == {"segpipe.ops.group_norm"}
