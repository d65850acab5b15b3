"""The network of Mask R-CNN. Proposals, heads and losses are torchvision's.

It differs from torchvision's defaults in two ways. Images keep their size: cells of ten pixels are detected with anchors of ten
pixels, instead of enlarging the whole image. And the heads are narrow, so that a step takes seconds on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork

from segpipe.models.detection.mask_rcnn_config import MIN_SCORE, STRIDES, pyramid_strides
from segpipe.ops.mask_predictor import FastMaskPredictor
from segpipe.ops.proposal_head import SparseGradientRPNHead
from segpipe.ops.roi_align import FastMultiScaleRoIAlign

if TYPE_CHECKING:
    from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig

_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_BOX_POOL_SIZE, _MASK_POOL_SIZE = 7, 14
_MIN_PROPOSALS = 1000
_DEFAULT_ANCHOR = 32.0
"""Edge length in pixels, if the settings have no anchors."""
_DEFAULT_DETECTIONS = 100


class Pyramid(torch.nn.Module):
    """An encoder with a feature pyramid over its stages.

    Args:
        encoder: An encoder of segmentation_models_pytorch with five stages.
        channels: Channels of each level of the pyramid.
        strides: Strides of the levels that are returned.
    """

    def __init__(self, encoder: torch.nn.Module, channels: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.out_channels, self.strides = encoder, channels, strides
        self.fpn = FeaturePyramidNetwork(list(encoder.out_channels[2:6]), channels)  # type: ignore[index]
        for level, stride in enumerate(STRIDES):
            if stride not in strides:
                self.fpn.layer_blocks[level] = torch.nn.Identity()  # nothing reads this level

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, C, H, W) to feature maps by stride (as a string), finest first, in float32.

        Anchors take the dtype of the features, and bfloat16 cannot represent positions above 256 exactly.
        """
        stages = self.encoder(images)[2:6]
        features = self.fpn(OrderedDict((str(s), stage) for s, stage in zip(STRIDES, stages, strict=True)))
        return OrderedDict((str(s), features[str(s)].float()) for s in self.strides)


class PassThroughTransform(GeneralizedRCNNTransform):
    """Replaces the transform of torchvision's detectors by one that changes neither images nor detections.

    Images are already normalised and padded. Masks stay in the frame of their box, (n, 1, 28, 28): at the size of the image, hundreds
    of them would not fit into memory.
    """

    def __init__(self, stride: int) -> None:
        super().__init__(min_size=0, max_size=0, image_mean=[], image_std=[], size_divisible=stride)

    def normalize(self, image: Tensor) -> Tensor:
        """Return the image unchanged."""
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and target unchanged, except that boxes become floats, as torchvision requires."""
        return image, target and target | {"boxes": target["boxes"].float()}

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: Any
    ) -> list[dict[str, Tensor]]:
        """Return the detections unchanged."""
        return result


class MaskRcnn(MaskRCNN):
    """torchvision's Mask R-CNN.

    In training, it maps ``images, targets`` to a dictionary of losses by name; in evaluation mode, ``images`` to a list with one
    dictionary of detections per image. Images are (N, C, H, W), float32, with H and W multiples of 32.

    A target holds `boxes`, (n, 4), int64: x and y of the first corner and of one past the last (whole pixels, because mixed precision
    would round floats); `labels`, (n,), int64; `masks`, (n, H, W), uint8. A detection holds the same, with `boxes` in float32, `scores`,
    (n,), float32, 0..1, and `masks`, (n, 1, 28, 28), 0..1, in the frame of the box.

    Args:
        config: Settings.
        encoder: An encoder of segmentation_models_pytorch with five stages.
        n_classes: Number of classes with the background.
    """

    def __init__(self, config: MaskRcnnConfig, encoder: torch.nn.Module, n_classes: int) -> None:
        strides = pyramid_strides(config.first_stride or STRIDES[0])[: max(1, len(config.anchors))]
        anchors = config.anchors or (_DEFAULT_ANCHOR,)
        detections = config.detections or _DEFAULT_DETECTIONS
        super().__init__(
            Pyramid(encoder, config.channels, strides),
            rpn_anchor_generator=AnchorGenerator(tuple((a,) for a in anchors), (_ASPECT_RATIOS,) * len(anchors)),
            rpn_head=SparseGradientRPNHead(config.channels, len(_ASPECT_RATIOS)),
            rpn_pre_nms_top_n_train=_MIN_PROPOSALS,
            rpn_pre_nms_top_n_test=max(_MIN_PROPOSALS, 2 * detections),
            rpn_post_nms_top_n_train=_MIN_PROPOSALS,
            rpn_post_nms_top_n_test=max(_MIN_PROPOSALS, 2 * detections),
            box_roi_pool=FastMultiScaleRoIAlign(strides, _BOX_POOL_SIZE),
            box_head=TwoMLPHead(config.channels * _BOX_POOL_SIZE**2, config.hidden),
            box_predictor=FastRCNNPredictor(config.hidden, n_classes),
            box_batch_size_per_image=config.box_batch,
            box_detections_per_img=detections,
            box_score_thresh=MIN_SCORE,
            mask_roi_pool=FastMultiScaleRoIAlign(strides, _MASK_POOL_SIZE),
            mask_head=MaskRCNNHeads(config.channels, (config.channels,) * config.mask_convs, 1),
            mask_predictor=FastMaskPredictor(config.channels, config.channels, n_classes),
        )
        self.transform = PassThroughTransform(STRIDES[-1])
        # Masks start undecided: with large random logits, the first steps would only learn to make them smaller.
        torch.nn.init.normal_(self.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.001)

    @property
    def encoder(self) -> torch.nn.Module:
        """The part that pretrained encoder weights fill."""
        return self.backbone.encoder
