"""Recognise image files by their names, and links that were saved as text files."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
    ".gif",
    ".ppm",
    ".pgm",
    ".npy",
    ".npz",
    ".jp2",
    ".j2k",
    ".jxl",
    ".h5",
    ".hdf5",
    ".dcm",
)
"""Endings (lower case) of 2D image files. A TIFF file or an array may also be a volume."""

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".hdr", ".mhd", ".nhdr")
"""Endings (lower case) of volume files, the longer of two first. The last three are headers, whose data are in another file."""

_MAX_LINK_LENGTH = 4096
LINK_FIX = "restore the links (git config core.symlinks true, then git checkout -- .), or copy the files in their place"
"""The fix that errors advise for links that were saved as text files."""


def suffix_of(path: Path) -> str:
    """Return the ending of a file name in lower case; `.nii.gz` counts as one ending. An empty string if there is none."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), path.suffix.lower())


def stem_of(path: Path) -> str:
    """Return the file name without its ending (`suffix_of`). An image and its mask have the same stem."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_image_file(path: Path) -> bool:
    """Return whether a file name is that of an image or a volume. Hidden files are not images."""
    return not path.name.startswith(".") and suffix_of(path) in (*SUFFIXES, *VOLUME_SUFFIXES)


def saved_link(content: bytes) -> str | None:
    """Return the relative path that a file holds if it is a link that was saved as text, as Git and some archives do on Windows.

    Args:
        content: the bytes of the file.

    Returns:
        The path; None for any other file.
    """
    if not 3 < len(content) <= _MAX_LINK_LENGTH or not content.startswith((b"../", b"./", b"..\\", b".git/annex/")):
        return None
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def image_files(folder: Path) -> list[Path]:
    """List the image and volume files of a folder (not of its subfolders) in the order of their names, without hidden files."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_image_file(path) and path.is_file())
