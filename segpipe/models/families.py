"""Every family of models there is: one line each. The types and builders stand where the line says, and are imported when asked for."""

from __future__ import annotations

from segpipe.models.family import Family

_SEMANTIC = "segpipe.models.semantic.encoder_decoders"
_VOLUMETRIC = "segpipe.models.volumetric.unet3d"
_TORCHVISION = "segpipe.models.semantic.torchvision_networks"
_CLASSICAL = "segpipe.models.classical"

FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family(
            "unet", "network",
            "Encoder and decoder with skip connections: sharp borders, the first thing to try.",
            "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597",
            f"{_SEMANTIC}:UnetConfig", f"{_SEMANTIC}:build_unet",
        ),
        Family(
            "unetplusplus", "network",
            "U-Net with nested skip connections: a little sharper on fine structures, at twice the cost.",
            "Zhou et al. 2018, arXiv:1807.10165",
            f"{_SEMANTIC}:UnetPlusPlusConfig", f"{_SEMANTIC}:build_unetplusplus",
        ),
        Family(
            "unet_vgg16", "network",
            "U-Net over VGG16 with batch normalisation: ImageNet transfer on small sets, where memory and time allow it.",
            "Iglovikov, Shvets 2018, arXiv:1801.05746",
            f"{_SEMANTIC}:Vgg16UnetConfig", f"{_SEMANTIC}:build_unet_vgg16", freeze_encoder=0.25, rate=0.5,
        ),
        Family(
            "unet_2015", "network",
            "The original U-Net, from random weights: images unlike photographs, few classes, no use for pretraining.",
            "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597",
            "segpipe.models.semantic.unet_2015:Unet2015Config", "segpipe.models.semantic.unet_2015:build_unet_2015", stride=16,
        ),
        Family(
            "deeplabv3", "network",
            "Dilated convolutions at several rates see context: scenes whose objects have plain outlines.",
            "Chen et al. 2017, arXiv:1706.05587",
            f"{_SEMANTIC}:DeepLabV3Config", f"{_SEMANTIC}:build_deeplabv3", least_batch=2,
        ),
        Family(
            "deeplabv3plus", "network",
            "Dilated convolutions see far, a small decoder sharpens: objects of many sizes, scenes.",
            "Chen et al. 2018, arXiv:1802.02611",
            f"{_SEMANTIC}:DeepLabV3PlusConfig", f"{_SEMANTIC}:build_deeplabv3plus", stride=16, least_batch=2,
        ),
        Family(
            "fcn8s", "network",
            "VGG16 with its classifier as convolutions, scores of three scales summed: the classic to compare with.",
            "Long, Shelhamer, Darrell 2015, arXiv:1411.4038",
            "segpipe.models.semantic.fcn8s:Fcn8sConfig", "segpipe.models.semantic.fcn8s:build_fcn8s", rate=0.5,
        ),
        Family(
            "fcn_resnet50", "network",
            "One head on a dilated ResNet-50: published COCO weights to start from, where a GPU trains.",
            "Long, Shelhamer, Darrell 2015, arXiv:1411.4038",
            f"{_TORCHVISION}:FcnResnet50Config", f"{_TORCHVISION}:build_fcn_resnet50",
        ),
        Family(
            "segnet", "network",
            "VGG16 mirrored, maxima put back where they stood: street scenes, borders at little memory.",
            "Badrinarayanan, Kendall, Cipolla 2017, arXiv:1511.00561",
            "segpipe.models.semantic.segnet:SegNetConfig", "segpipe.models.semantic.segnet:build_segnet", rate=0.5,
        ),
        Family(
            "lraspp_mobilenetv3", "network",
            "A light head on a dilated MobileNetV3: real time on a processor, video.",
            "Howard et al. 2019, arXiv:1905.02244",
            f"{_TORCHVISION}:LrasppConfig", f"{_TORCHVISION}:build_lraspp_mobilenetv3",
        ),
        Family(
            "fpn", "network",
            "A pyramid of features at four scales: objects of very different sizes, at little cost.",
            "Kirillov et al. 2019, arXiv:1901.02446",
            f"{_SEMANTIC}:FpnConfig", f"{_SEMANTIC}:build_fpn",
        ),
        Family(
            "pspnet", "network",
            "Context pooled over the image in a pyramid: scenes, where speed counts more than fine borders.",
            "Zhao et al. 2017, arXiv:1612.01105",
            f"{_SEMANTIC}:PspnetConfig", f"{_SEMANTIC}:build_pspnet", least_batch=2,
        ),
        Family(
            "pan", "network",
            "Attention over a pyramid of features: scenes, with few parameters.",
            "Li et al. 2018, arXiv:1805.10180",
            f"{_SEMANTIC}:PanConfig", f"{_SEMANTIC}:build_pan", stride=128, least_batch=2,
        ),
        Family(
            "linknet", "network",
            "Skip connections that add instead of concatenating: nearly U-Net, faster and smaller.",
            "Chaurasia, Culurciello 2017, arXiv:1707.03718",
            f"{_SEMANTIC}:LinknetConfig", f"{_SEMANTIC}:build_linknet",
        ),
        Family(
            "manet", "network",
            "U-Net whose decoder attends to positions and channels: small objects in wide surroundings.",
            "Fan et al. 2020, doi:10.1109/ACCESS.2020.3025372",
            f"{_SEMANTIC}:ManetConfig", f"{_SEMANTIC}:build_manet",
        ),
        Family(
            "upernet", "network",
            "Pyramid pooling on top of a feature pyramid: the usual decoder for transformers and large encoders.",
            "Xiao et al. 2018, arXiv:1807.10221",
            f"{_SEMANTIC}:UpernetConfig", f"{_SEMANTIC}:build_upernet", least_batch=2,
        ),
        Family(
            "segformer", "network",
            "A decoder of plain projections, made for the mix-transformer encoders (mit_b0 to mit_b5): much context, few parameters.",
            "Xie et al. 2021, arXiv:2105.15203",
            f"{_SEMANTIC}:SegformerConfig", f"{_SEMANTIC}:build_segformer",
        ),
        Family(
            "unet3d", "network",
            "U-Net for volumes, which leaves thick slices whole until voxels are cubes: the first thing to try on volumes.",
            "Cicek et al. 2016, arXiv:1606.06650; Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
            f"{_VOLUMETRIC}:Unet3dConfig", f"{_VOLUMETRIC}:build_unet3d", dims=3, stride=8,
        ),
        Family(
            "vnet", "network",
            "Residual U-Net for volumes with wide convolutions: large organs in voxels that are about cubes.",
            "Milletari, Navab, Ahmadi 2016, arXiv:1606.04797",
            f"{_VOLUMETRIC}:VnetConfig", f"{_VOLUMETRIC}:build_vnet", dims=3, stride=8, least_batch=2,
        ),
        Family(
            "segresnet", "network",
            "Deep residual encoder and a light decoder for volumes: fine textures, little memory.",
            "Myronenko 2018, arXiv:1810.11654",
            f"{_VOLUMETRIC}:SegresnetConfig", f"{_VOLUMETRIC}:build_segresnet", dims=3, stride=8,
        ),
        Family(
            "mask_rcnn", "detector",
            "Boxes first, then a mask in each: objects that touch or overlap, counted one by one.",
            "He, Gkioxari, Dollar, Girshick 2017, arXiv:1703.06870",
            "segpipe.models.detection.mask_rcnn_config:MaskRcnnConfig", "segpipe.models.detection.mask_rcnn:build_mask_rcnn", batch=4, rate=0.5,
        ),
        Family(
            "custom", "network",
            "A network of your own: `factory: my_module:build` in params.yaml (docs/own-family.md).",
            "yours",
            "segpipe.models.custom:FactoryConfig", "segpipe.models.custom:build_custom",
        ),
        Family(
            "kmeans", "classical",
            "Clusters of colour, each given its most frequent class: the baseline that a network has to beat.",
            "Lloyd 1982, doi:10.1109/TIT.1982.1056489",
            f"{_CLASSICAL}:KMeansConfig", f"{_CLASSICAL}:KMeans", stride=1, dims=None,
        ),
        Family(
            "edges", "classical",
            "Regions between edges (watershed on the gradient), classed by how they look: a baseline for objects with outlines.",
            "Vincent, Soille 1991, doi:10.1109/34.87344",
            f"{_CLASSICAL}:EdgesConfig", f"{_CLASSICAL}:Edges", stride=1,
        ),
        Family(
            "spectral", "classical",
            "Regions that are alike within (normalised cuts of a graph of superpixels), classed by how they look: a baseline for scenes.",
            "Shi, Malik 2000, doi:10.1109/34.868688",
            f"{_CLASSICAL}:SpectralConfig", f"{_CLASSICAL}:Spectral", stride=1,
        ),
    )
}  # fmt: skip
"""Every family there is, by the name that `family:` in params.yaml takes."""
