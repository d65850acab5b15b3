"""The names that folders of images, masks and splits, and files of masks, usually have."""

from __future__ import annotations

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "inputs", "input")
MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "gt",
    "groundtruth",
    "ground_truth",
    "targets",
    "target",
)
MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_target")
"""The possible texts after the image's name in the name of its mask."""
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders that hold a split, and the split."""


def is_part(name: str) -> bool:
    """Return whether a folder is named like a part of a dataset (train2017, images, annotations), not like a whole dataset."""
    return name.lower().rstrip("0123456789") in (*IMAGE_FOLDERS, *MASK_FOLDERS, *SPLIT_FOLDERS)
