import copy

import pytest
import torch

from segpipe.inference.preprocess import Normalisation
from segpipe.ops.instance_norm import use_fast_instance_norm
from segpipe.training.plan import StepSetting, VolumeGrid
from segpipe.training.step import build_stepper
from tests.worlds.network_equivalence import output_and_gradients
from tests.worlds.tiny_training import make_plan

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last_3d}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_equal_torchs(layout, affine, training):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.InstanceNorm3d(5, affine=affine)).train(training)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    torchs = copy.deepcopy(ours)
    use_fast_instance_norm(ours)
    x = (torch.randn(3, 5, 4, 6, 2) * torch.tensor([1.0, 9, 0.1]).view(3, 1, 1, 1, 1) + 2).contiguous(
        memory_format=LAYOUTS[layout]
    )
    output_gradient = torch.randn_like(x)
    results, expected = output_and_gradients(ours, x, output_gradient), output_and_gradients(torchs, x, output_gradient)
    for result, other in zip(results, expected, strict=True):
        torch.testing.assert_close(result, other, atol=2e-5, rtol=1e-4)
    assert ours.state_dict().keys() == torchs.state_dict().keys() and isinstance(ours[0], torch.nn.InstanceNorm3d)


def test_bfloat16_is_as_precise_as_torchs_and_the_memory_format_is_kept():
    torch.manual_seed(0)
    layer = torch.nn.InstanceNorm3d(16, affine=True)
    x = (torch.randn(2, 16, 24, 24, 24) * 3 + 20).contiguous(memory_format=torch.channels_last_3d)
    output_gradient = torch.randn_like(x)
    exact = output_and_gradients(layer, x.bfloat16().float(), output_gradient)
    torchs = output_and_gradients(layer, x.bfloat16(), output_gradient)
    use_fast_instance_norm(network := torch.nn.Sequential(layer))
    results = output_and_gradients(network, x.bfloat16(), output_gradient)
    for result, other, true in zip(results, torchs, exact, strict=True):
        assert (result - true).abs().mean() <= 1.2 * (other - true).abs().mean() + 1e-6
    assert results[0].dtype == torch.bfloat16
    assert all(result.is_contiguous(memory_format=torch.channels_last_3d) for result in results[:2])


def test_layers_with_running_statistics_are_not_replaced():
    layer = torch.nn.InstanceNorm3d(4, track_running_stats=True)
    use_fast_instance_norm(layer)
    assert type(layer) is torch.nn.InstanceNorm3d


def test_a_channels_last_step_stays_so_from_layer_to_layer():
    grid = VolumeGrid(patch=(16, 16, 16), spacing=(1.0, 1.0, 1.0), flips=(False,) * 3)
    identity = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    plan = make_plan(StepSetting(precision="fp32", channels_last=True), channels=1, family="unet3d").model_copy(
        update={"options": {"channels": 4, "depth": 3}, "normalisation": identity, "volume": grid}
    )
    stepper, channels_last = build_stepper(plan), []
    for module in stepper.network.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(
                lambda _, inputs, __: channels_last.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last_3d)
                )
            )
    stepper.step(0, torch.randn(2, 1, 16, 16, 16), torch.zeros(2, 16, 16, 16, dtype=torch.uint8), 0)
    assert channels_last and all(channels_last)
