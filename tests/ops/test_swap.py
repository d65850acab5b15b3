"""The helper that swaps classes, and what the replacements rely on in the installed versions of the libraries.

If one of the tests for a library fails after an update, read the new source of the class that it names, and adapt the module of
segpipe.ops that replaces it.
"""

import copy
import inspect
from importlib.metadata import version

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock, FPNDecoder
from segmentation_models_pytorch.decoders.manet.decoder import DecoderBlock as ManetBlock
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from segmentation_models_pytorch.decoders.unetplusplus.decoder import DecoderBlock as UnetPlusPlusBlock
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from segpipe.ops.depthwise import use_fast_depthwise
from segpipe.ops.feature_pyramid import use_fused_pyramid
from segpipe.ops.fused_upsample import use_fused_upsampling
from segpipe.ops.group_norm import use_fast_group_norm
from segpipe.ops.instance_norm import use_fast_instance_norm
from segpipe.ops.mask_predictor import FastMaskPredictor
from segpipe.ops.proposal_head import SparseGradientRPNHead
from segpipe.ops.roi_align import FastMultiScaleRoIAlign
from segpipe.ops.swap import swap_class, swap_classes
from segpipe.ops.upsampling import use_fast_upsampling


class Doubled(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_module_keeps_its_state_and_changes_its_class():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    weights, x = copy.deepcopy(network.state_dict()), torch.randn(3, 2)
    expected = 2 * network[0](x)
    swap_classes(network, lambda module: Doubled if type(module) is torch.nn.Linear else None)
    assert type(network[0]) is Doubled and type(network[1]) is torch.nn.ReLU
    assert torch.equal(network[0](x), expected)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights.items())
    assert type(copy.deepcopy(network)[0]) is Doubled


def test_only_a_subclass_can_replace_a_class():
    with pytest.raises(TypeError, match="Doubled cannot replace ReLU: it is not a subclass"):
        swap_class(torch.nn.ReLU(), Doubled)


def check(library, replaced, module, condition, expectation):
    """Fail with the version of the library and the module to adapt."""
    assert condition, (
        f"{library} {version(library)}: {replaced} changed, on which segpipe/ops/{module}.py relies: expected {expectation}"
    )


def check_forward(library, replaced, module, parameters):
    found = [*inspect.signature(replaced.forward).parameters]
    check(library, replaced.__qualname__, module, found == ["self", *parameters], f"forward({', '.join(parameters)})")


def check_attributes(library, instance, module, names):
    missing = [name for name in names if not hasattr(instance, name)]
    check(library, type(instance).__qualname__, module, not missing, f"attributes {', '.join(missing)}")


def check_same_output(library, plain, swapped, module, *arguments):
    outputs = plain(*arguments), swapped(*arguments)
    try:
        torch.testing.assert_close(outputs[1], outputs[0], atol=1e-4, rtol=1e-4)
    except AssertionError as error:
        pytest.fail(
            f"{library} {version(library)}: segpipe/ops/{module}.py computes something else than {type(plain).__qualname__}: "
            f"{error}"
        )


IMAGES = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
VOLUMES = torch.randn(2, 4, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
TORCH_LAYERS = {
    "depthwise": (
        torch.nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False),
        ["groups", "in_channels", "kernel_size", "stride", "dilation", "padding", "padding_mode", "bias"],
        IMAGES.bfloat16().float(),
    ),
    "group_norm": (torch.nn.GroupNorm(2, 4), ["num_groups", "eps", "weight", "bias"], IMAGES),
    "instance_norm": (
        torch.nn.InstanceNorm3d(4, affine=True),
        ["track_running_stats", "eps", "weight", "bias"],
        VOLUMES,
    ),
    "upsampling": (torch.nn.Upsample(scale_factor=2, mode="bilinear"), ["mode"], IMAGES[:, :3]),
}
SWAPS = {
    "depthwise": use_fast_depthwise,
    "group_norm": use_fast_group_norm,
    "instance_norm": use_fast_instance_norm,
    "upsampling": use_fast_upsampling,
}


@pytest.mark.parametrize("module", TORCH_LAYERS)
def test_torch_has_what_the_replacements_rely_on(module):
    plain, attributes, x = TORCH_LAYERS[module]
    check_forward("torch", type(plain), module, ["input"])
    check_attributes("torch", plain, module, attributes)
    swapped = torch.nn.Sequential(copy.deepcopy(plain))
    if module == "depthwise":  # it computes in bfloat16
        with torch.no_grad():
            plain.weight.copy_(plain.weight.bfloat16().float())
            swapped[0].weight.copy_(plain.weight)
    SWAPS[module](swapped)
    assert type(swapped[0]).__module__ == f"segpipe.ops.{module}"
    if module == "depthwise":
        torch.testing.assert_close(swapped(x), plain(x), atol=0.05, rtol=0.02)
    else:
        check_same_output("torch", plain, swapped[0], module, x)


def test_torch_has_the_operators_that_the_replacements_call():
    for name, module in (("convolution_backward", "depthwise"), ("native_batch_norm_backward", "group_norm")):
        check("torch", f"torch.ops.aten.{name}", module, hasattr(torch.ops.aten, name), "this operator")
    check("torch", "batch_norm_update_stats", "group_norm", hasattr(torch, "batch_norm_update_stats"), "this function")


def test_torchvision_has_what_the_replacements_rely_on():
    predictor, fast_predictor = MaskRCNNPredictor(4, 6, 3), FastMaskPredictor(4, 6, 3)
    fast_predictor.load_state_dict(predictor.state_dict())
    children = [name for name, _ in predictor.named_children()]
    layers = ["conv5_mask", "relu", "mask_fcn_logits"]
    check("torchvision", "MaskRCNNPredictor", "mask_predictor", children == layers, f"layers {', '.join(layers)}")
    check_same_output("torchvision", predictor, fast_predictor, "mask_predictor", torch.randn(2, 4, 5, 5))

    head, fast_head = RPNHead(4, 3), SparseGradientRPNHead(4, 3)
    fast_head.load_state_dict(head.state_dict())
    check_forward("torchvision", RPNHead, "proposal_head", ["x"])
    check_attributes("torchvision", head, "proposal_head", ["conv", "cls_logits", "bbox_pred"])
    is_convolution = isinstance(head.conv[0][0], torch.nn.Conv2d) and isinstance(head.conv[0][1], torch.nn.ReLU)
    check("torchvision", "RPNHead", "proposal_head", is_convolution, "conv[0] to be a convolution and a ReLU")
    check_same_output("torchvision", head, fast_head, "proposal_head", [torch.randn(2, 4, 6, 5)])

    pool, fast_pool = MultiScaleRoIAlign(["4", "8"], 7, sampling_ratio=2), FastMultiScaleRoIAlign((4, 8), 7)
    check_forward("torchvision", MultiScaleRoIAlign, "roi_align", ["x", "boxes", "image_shapes"])
    check_attributes("torchvision", pool, "roi_align", ["featmap_names", "output_size", "scales", "map_levels"])
    levels = {"4": torch.randn(1, 3, 16, 16), "8": torch.randn(1, 3, 8, 8)}
    boxes = [torch.tensor([[2.0, 3.0, 30.0, 40.0], [0.0, 0.0, 60.0, 60.0]])]
    check_same_output("torchvision", pool, fast_pool, "roi_align", levels, boxes, [(64, 64)])


def test_segmentation_models_pytorch_has_what_the_replacements_rely_on():
    library = "segmentation-models-pytorch"
    check_forward(library, FPNDecoder, "feature_pyramid", ["features"])
    check_forward(library, FPNBlock, "feature_pyramid", ["x", "skip"])
    unet = ["feature_map", "target_height", "target_width", "skip_connection"]
    check_forward(library, UnetDecoderBlock, "fused_upsample", unet)
    for block in (UnetPlusPlusBlock, ManetBlock):
        check_forward(library, block, "fused_upsample", ["x", "skip"])
    fpn = smp.FPN("resnet18", encoder_weights=None)
    attributes = ["p2", "p3", "p4", "p5", "seg_blocks", "merge", "dropout"]
    check_attributes(library, fpn.decoder, "feature_pyramid", attributes)
    check_attributes(library, fpn.decoder.p2, "feature_pyramid", ["skip_conv", "interpolation_mode"])
    for name in ("Unet", "UnetPlusPlus", "MAnet"):
        network = getattr(smp, name)("resnet18", encoder_weights=None)
        blocks = [m for m in network.modules() if type(m) in (UnetDecoderBlock, UnetPlusPlusBlock, ManetBlock)]
        check(library, name, "fused_upsample", bool(blocks), "decoder blocks of the known classes")
        check_attributes(library, blocks[0], "fused_upsample", ["conv1", "conv2", "interpolation_mode"])
        check(library, name, "fused_upsample", len(blocks[0].conv1) == 3, "conv1 of convolution, norm and activation")


@pytest.mark.parametrize("name", ["FPN", "Unet", "UnetPlusPlus", "MAnet"])
def test_segmentation_models_pytorch_computes_the_same_with_replacements(name):
    torch.manual_seed(0)
    options = {"decoder_dropout": 0.0} if name == "FPN" else {}
    plain = getattr(smp, name)("resnet18", encoder_weights=None, **options).double().train()
    swapped = copy.deepcopy(plain)
    (use_fused_pyramid if name == "FPN" else use_fused_upsampling)(swapped)
    module = "feature_pyramid" if name == "FPN" else "fused_upsample"
    assert any(type(m).__module__ == f"segpipe.ops.{module}" for m in swapped.modules())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    check_same_output("segmentation-models-pytorch", plain, swapped, module, images)
