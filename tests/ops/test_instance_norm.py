import copy

import pytest
import torch

from segpipe.inference.preprocess import Normalisation
from segpipe.ops.instance_norm import use_fast_instance_norm
from segpipe.training.plan import StepSetting, VolumeGrid
from segpipe.training.step import build_stepper
from tests.worlds.tiny_training import make_plan

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last_3d}


def _gradients(layer, x, slope):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], slope.to(y.dtype))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_each_image_is_normalised_by_itself_and_learns_as_torchs(layout, affine, training):
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.InstanceNorm3d(5, affine=affine)).train(training)
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter)
    torchs = copy.deepcopy(own)
    use_fast_instance_norm(own)
    x = (torch.randn(3, 5, 4, 6, 2) * torch.tensor([1.0, 9, 0.1]).view(3, 1, 1, 1, 1) + 2).contiguous(
        memory_format=LAYOUTS[layout]
    )
    slope = torch.randn_like(x)
    for ours, theirs in zip(_gradients(own, x, slope), _gradients(torchs, x, slope), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert own.state_dict().keys() == torchs.state_dict().keys() and isinstance(own[0], torch.nn.InstanceNorm3d)


def test_in_bfloat16_it_is_as_precise_as_torchs_and_volumes_stay_as_they_lie():
    torch.manual_seed(0)
    layer = torch.nn.InstanceNorm3d(16, affine=True)
    x = (torch.randn(2, 16, 24, 24, 24) * 3 + 20).contiguous(memory_format=torch.channels_last_3d)
    slope = torch.randn_like(x)
    exact = _gradients(layer, x.bfloat16().float(), slope)
    torchs = _gradients(layer, x.bfloat16(), slope)
    use_fast_instance_norm(network := torch.nn.Sequential(layer))
    found = _gradients(network, x.bfloat16(), slope)
    for ours, theirs, true in zip(found, torchs, exact, strict=True):
        assert (ours - true).abs().mean() <= 1.2 * (theirs - true).abs().mean() + 1e-6
    assert found[0].dtype == torch.bfloat16
    assert all(one.is_contiguous(memory_format=torch.channels_last_3d) for one in found[:2])


def test_statistics_that_run_over_images_stay_torchs():
    layer = torch.nn.InstanceNorm3d(4, track_running_stats=True)
    use_fast_instance_norm(layer)
    assert type(layer) is torch.nn.InstanceNorm3d


def test_a_step_that_is_channels_last_stays_so_from_layer_to_layer():
    grid = VolumeGrid(patch=(16, 16, 16), spacing=(1.0, 1.0, 1.0), flips=(False,) * 3)
    own = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    plan = make_plan(StepSetting(precision="fp32", channels_last=True), channels=1, family="unet3d").model_copy(
        update={"options": {"channels": 4, "depth": 3}, "normalisation": own, "volume": grid}
    )
    stepper, lying = build_stepper(plan), []
    for module in stepper.network.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(
                lambda _, inputs, __: lying.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))
            )
    stepper.step(0, torch.randn(2, 1, 16, 16, 16), torch.zeros(2, 16, 16, 16, dtype=torch.uint8), 0)
    assert lying and all(lying)
