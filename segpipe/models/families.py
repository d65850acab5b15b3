"""The list of all model families.

Settings and builders are named by reference and imported on first use.
"""

from __future__ import annotations

from segpipe.models.family import Family

_SEMANTIC = "segpipe.models.semantic.encoder_decoders"
_VOLUMETRIC = "segpipe.models.volumetric"
_DETECTION = "segpipe.models.detection"
_TORCHVISION = "segpipe.models.semantic.torchvision_networks"
_CLASSICAL = "segpipe.models.classical"

FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family(
            "unet", "network",
            "Encoder-decoder with skip connections: sharp borders. The best first choice for images.",
            "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597",
            f"{_SEMANTIC}:UnetConfig", f"{_SEMANTIC}:build_unet",
        ),
        Family(
            "unetplusplus", "network",
            "U-Net with nested skip connections: slightly sharper on fine structures, but slower.",
            "Zhou et al. 2018, arXiv:1807.10165",
            f"{_SEMANTIC}:UnetPlusPlusConfig", f"{_SEMANTIC}:build_unetplusplus",
        ),
        Family(
            "unet_vgg16", "network",
            "U-Net with a VGG16 encoder (batch normalisation): transfers well to small datasets, but is slow and needs much memory.",
            "Iglovikov, Shvets 2018, arXiv:1801.05746",
            f"{_SEMANTIC}:Vgg16UnetConfig", f"{_SEMANTIC}:build_unet_vgg16", freeze_encoder=0.25, learning_rate_factor=0.5,
        ),
        Family(
            "unet_2015", "network",
            "The original U-Net, trained from random weights: for images unlike photographs, if pretraining does not help. Slow.",
            "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597",
            "segpipe.models.semantic.unet_2015:Unet2015Config", "segpipe.models.semantic.unet_2015:build_unet_2015", stride=16,
        ),
        Family(
            "deeplabv3", "network",
            "Dilated convolutions at several rates: much context, coarse borders. For scenes with simple outlines.",
            "Chen et al. 2017, arXiv:1706.05587",
            f"{_SEMANTIC}:DeepLabV3Config", f"{_SEMANTIC}:build_deeplabv3", min_batch=2,
        ),
        Family(
            "deeplabv3plus", "network",
            "DeepLabV3 with a small decoder: much context and sharper borders. For scenes with structures of many sizes.",
            "Chen et al. 2018, arXiv:1802.02611",
            f"{_SEMANTIC}:DeepLabV3PlusConfig", f"{_SEMANTIC}:build_deeplabv3plus", stride=16, min_batch=2,
        ),
        Family(
            "fcn8s", "network",
            "VGG16 as a fully convolutional network that sums the scores of three scales. A classic, to compare with.",
            "Long, Shelhamer, Darrell 2015, arXiv:1411.4038",
            "segpipe.models.semantic.fcn8s:Fcn8sConfig", "segpipe.models.semantic.fcn8s:build_fcn8s", learning_rate_factor=0.5,
        ),
        Family(
            "fcn_resnet50", "network",
            "One head on a dilated ResNet-50. Can start from published COCO weights; best trained on a GPU.",
            "Long, Shelhamer, Darrell 2015, arXiv:1411.4038",
            f"{_TORCHVISION}:FcnResnet50Config", f"{_TORCHVISION}:build_fcn_resnet50",
        ),
        Family(
            "segnet", "network",
            "VGG16 with a mirrored decoder that reuses the positions of max-pooling: good borders with little memory. For street scenes.",
            "Badrinarayanan, Kendall, Cipolla 2017, arXiv:1511.00561",
            "segpipe.models.semantic.segnet:SegNetConfig", "segpipe.models.semantic.segnet:build_segnet", learning_rate_factor=0.5,
        ),
        Family(
            "lraspp_mobilenetv3", "network",
            "A light head on a dilated MobileNetV3: real time on a CPU. For video.",
            "Howard et al. 2019, arXiv:1905.02244",
            f"{_TORCHVISION}:LrasppConfig", f"{_TORCHVISION}:build_lraspp_mobilenetv3",
        ),
        Family(
            "fpn", "network",
            "A feature pyramid with four scales: structures of very different sizes, at low cost.",
            "Kirillov et al. 2019, arXiv:1901.02446",
            f"{_SEMANTIC}:FpnConfig", f"{_SEMANTIC}:build_fpn",
        ),
        Family(
            "pspnet", "network",
            "Pyramid pooling collects context from the whole image. For scenes, if speed matters more than fine borders.",
            "Zhao et al. 2017, arXiv:1612.01105",
            f"{_SEMANTIC}:PspnetConfig", f"{_SEMANTIC}:build_pspnet", min_batch=2,
        ),
        Family(
            "pan", "network",
            "Attention over a feature pyramid: few parameters. For scenes.",
            "Li et al. 2018, arXiv:1805.10180",
            f"{_SEMANTIC}:PanConfig", f"{_SEMANTIC}:build_pan", stride=128, min_batch=2,
        ),
        Family(
            "linknet", "network",
            "Like U-Net, but skip connections are added instead of concatenated: smaller and faster.",
            "Chaurasia, Culurciello 2017, arXiv:1707.03718",
            f"{_SEMANTIC}:LinknetConfig", f"{_SEMANTIC}:build_linknet",
        ),
        Family(
            "manet", "network",
            "U-Net with attention over positions and channels in the decoder. For small structures in large surroundings.",
            "Fan et al. 2020, doi:10.1109/ACCESS.2020.3025372",
            f"{_SEMANTIC}:ManetConfig", f"{_SEMANTIC}:build_manet",
        ),
        Family(
            "upernet", "network",
            "Pyramid pooling on top of a feature pyramid. The usual decoder for transformers and large encoders.",
            "Xiao et al. 2018, arXiv:1807.10221",
            f"{_SEMANTIC}:UpernetConfig", f"{_SEMANTIC}:build_upernet", min_batch=2,
        ),
        Family(
            "segformer", "network",
            "A light decoder for the mix-transformer encoders (mit_b0 to mit_b5): much context, few parameters.",
            "Xie et al. 2021, arXiv:2105.15203",
            f"{_SEMANTIC}:SegformerConfig", f"{_SEMANTIC}:build_segformer",
        ),
        Family(
            "unet3d", "network",
            "U-Net for volumes, adapted to thick slices (anisotropic voxels). The best first choice for volumes.",
            "Cicek et al. 2016, arXiv:1606.06650; Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
            f"{_VOLUMETRIC}.unet3d:Unet3dConfig", f"{_VOLUMETRIC}.unet3d:build_unet3d", dims=3, stride=8,
        ),
        Family(
            "vnet", "network",
            "Residual U-Net for volumes with large convolution kernels. For large organs and nearly isotropic voxels.",
            "Milletari, Navab, Ahmadi 2016, arXiv:1606.04797",
            f"{_VOLUMETRIC}.vnet:VnetConfig", f"{_VOLUMETRIC}.vnet:build_vnet", dims=3, stride=8, min_batch=2,
        ),
        Family(
            "segresnet", "network",
            "Deep residual encoder with a light decoder, for volumes. For fine textures; needs little memory.",
            "Myronenko 2018, arXiv:1810.11654",
            f"{_VOLUMETRIC}.segresnet:SegresnetConfig", f"{_VOLUMETRIC}.segresnet:build_segresnet", dims=3, stride=8,
        ),
        Family(
            "mask_rcnn", "detector",
            "Detects boxes and segments a mask in each: separates and counts instances that touch or overlap.",
            "He, Gkioxari, Dollar, Girshick 2017, arXiv:1703.06870",
            f"{_DETECTION}.mask_rcnn_config:MaskRcnnConfig", f"{_DETECTION}.mask_rcnn:build_mask_rcnn",
            batch=4, learning_rate_factor=0.5,
        ),
        Family(
            "custom", "network",
            "Your own network: `factory: my_module:build` in params.yaml (docs/own-family.md).",
            "your own",
            "segpipe.models.custom:FactoryConfig", "segpipe.models.custom:build_custom",
        ),
        Family(
            "kmeans", "classical",
            "Clusters pixels by colour and gives each cluster its most frequent class. The baseline that a network has to beat.",
            "Lloyd 1982, doi:10.1109/TIT.1982.1056489",
            f"{_CLASSICAL}:KMeansConfig", f"{_CLASSICAL}:KMeans", stride=1, dims=None,
        ),
        Family(
            "edges", "classical",
            "Splits the image into regions along edges (watershed on the gradient) and classifies each by its appearance. "
            "A baseline for images with clear outlines.",
            "Vincent, Soille 1991, doi:10.1109/34.87344",
            f"{_CLASSICAL}:EdgesConfig", f"{_CLASSICAL}:Edges", stride=1,
        ),
        Family(
            "spectral", "classical",
            "Merges superpixels into uniform regions (normalised cuts) and classifies each by its appearance. A baseline for scenes.",
            "Shi, Malik 2000, doi:10.1109/34.868688",
            f"{_CLASSICAL}:SpectralConfig", f"{_CLASSICAL}:Spectral", stride=1,
        ),
    )
}  # fmt: skip
"""All families, by the name that `family:` in params.yaml takes."""
