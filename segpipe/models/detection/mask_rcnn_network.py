"""The network of Mask R-CNN. Proposals, heads and losses are torchvision's.

Two things differ from its defaults. Images keep their size: cells of ten pixels are looked for with anchors of ten pixels, not
enlarged with the whole image. And heads are narrow, so that a step takes seconds on a processor.
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

_ASPECTS = (0.5, 1.0, 2.0)
_BOX_EDGE, _MASK_EDGE = 7, 14
_PROPOSALS = 1000


class Pyramid(torch.nn.Module):
    """An encoder and a feature pyramid over its stages: (N, C, H, W) -> a map for each chosen level, by its stride as a word."""

    def __init__(self, encoder: torch.nn.Module, channels: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.out_channels, self.strides = encoder, channels, strides
        self.fpn = FeaturePyramidNetwork(list(encoder.out_channels[2:6]), channels)  # type: ignore[index]
        for place, stride in enumerate(STRIDES):
            if stride not in strides:
                self.fpn.layer_blocks[place] = torch.nn.Identity()  # nothing reads this level

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps, finest first, in float32: anchors take their number type, and bfloat16 has no place 257."""
        stages = self.encoder(images)[2:6]
        found = self.fpn(OrderedDict((str(s), stage) for s, stage in zip(STRIDES, stages, strict=True)))
        return OrderedDict((str(s), found[str(s)].float()) for s in self.strides)


class PassThroughTransform(GeneralizedRCNNTransform):
    """What stands before and behind torchvision's detectors, doing nothing: images come normalised and padded, and masks stay in
    the frame of their box, (n, 1, 28, 28), because at the size of the image hundreds of them would not fit."""

    def __init__(self, stride: int) -> None:
        super().__init__(min_size=0, max_size=0, image_mean=[], image_std=[], size_divisible=stride)

    def normalize(self, image: Tensor) -> Tensor:
        """The image as it is."""
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Both as they are, boxes as torchvision wants them."""
        return image, target and target | {"boxes": target["boxes"].float()}

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: Any
    ) -> list[dict[str, Tensor]]:
        """The detections as they are."""
        return result


class MaskRcnn(MaskRCNN):
    """torchvision's Mask R-CNN. In training, ``(images (N, C, H, W), targets) -> losses by name``; else ``images -> detections``.

    A target holds boxes (n, 4) int64, x and y of the first corner and of one past the last (whole pixels: mixed precision would
    round floats), labels (n,) int64, masks (n, H, W) uint8;
    a detection the same with scores (n,), and masks (n, 1, 28, 28), 0..1, in the frame of the box. H and W: multiples of 32.
    """

    def __init__(self, config: MaskRcnnConfig, encoder: torch.nn.Module, n_classes: int) -> None:
        strides = pyramid_strides(config.first_stride or STRIDES[0])[: max(1, len(config.anchors))]
        anchors = config.anchors or (32.0,)
        detections = config.detections or 100
        super().__init__(
            Pyramid(encoder, config.channels, strides),
            rpn_anchor_generator=AnchorGenerator(tuple((a,) for a in anchors), (_ASPECTS,) * len(anchors)),
            rpn_head=SparseGradientRPNHead(config.channels, len(_ASPECTS)),
            rpn_pre_nms_top_n_train=_PROPOSALS,
            rpn_pre_nms_top_n_test=max(_PROPOSALS, 2 * detections),
            rpn_post_nms_top_n_train=_PROPOSALS,
            rpn_post_nms_top_n_test=max(_PROPOSALS, 2 * detections),
            box_roi_pool=FastMultiScaleRoIAlign(strides, _BOX_EDGE),
            box_head=TwoMLPHead(config.channels * _BOX_EDGE**2, config.hidden),
            box_predictor=FastRCNNPredictor(config.hidden, n_classes),
            box_batch_size_per_image=config.box_batch,
            box_detections_per_img=detections,
            box_score_thresh=MIN_SCORE,
            mask_roi_pool=FastMultiScaleRoIAlign(strides, _MASK_EDGE),
            mask_head=MaskRCNNHeads(config.channels, (config.channels,) * config.mask_convs, 1),
            mask_predictor=FastMaskPredictor(config.channels, config.channels, n_classes),
        )
        self.transform = PassThroughTransform(STRIDES[-1])
        # Masks start undecided: of large random logits, the first steps would learn nothing but to be smaller.
        torch.nn.init.normal_(self.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.001)

    @property
    def encoder(self) -> torch.nn.Module:
        """What pretrained weights are for."""
        return self.backbone.encoder  # type: ignore[no-any-return, union-attr]
