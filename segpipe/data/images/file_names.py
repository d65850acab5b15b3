"""Which files are taken for images, by name alone."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings (lower case) of files of pictures."""

VOLUME_SUFFIXES = (".nii.gz", ".nii")
"""Endings (lower case) of files of volumes; the longer one first."""


def suffix_of(path: Path) -> str:
    """The ending of a file's name in lower case, `.nii.gz` whole; "" where it has none."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """The name of a file without its ending, `.nii.gz` taken off whole: what pairs an image with its mask."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_image_file(path: Path) -> bool:
    """Whether a path is named as a picture or a volume is; hidden files are not meant."""
    return not path.name.startswith(".") and suffix_of(path) in (*SUFFIXES, *VOLUME_SUFFIXES)


def image_files(folder: Path) -> list[Path]:
    """The image and volume files right in a folder, in name order; hidden files are left out."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_image_file(path) and path.is_file())
