"""Every family of models there is: one line each. The types and builders stand where the line says, and are imported when asked for."""

from __future__ import annotations

from segpipe.models.family import Family

_SEMANTIC = "segpipe.models.semantic"
_VOLUMETRIC = "segpipe.models.volumetric"
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
            f"{_SEMANTIC}:Vgg16UnetConfig", f"{_SEMANTIC}:build_unet_vgg16", freeze_encoder=0.25,
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
            "segpipe.models.mask_rcnn:MaskRcnnConfig", "segpipe.models.mask_rcnn:build_mask_rcnn",
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
