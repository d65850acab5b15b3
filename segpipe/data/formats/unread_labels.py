"""Errors about labels or images in files that are not read: packed, in XML, in MATLAB's or GIS formats, or many images in one file."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.masks.name_words import role_of
from segpipe.data.images import SUFFIXES, is_image_file, suffix_of
from segpipe.errors import DataError

_MAX_FILES = 100_000
_PEEK_BYTES = 4096
_ARCHIVES = (".zip", ".tar", ".tgz", ".rar", ".7z")
_STACK_DIMENSIONS = 4
_MASK_NAMES = "`masks/` beside the images, with the names of the images"


def explain_unread(listing: FolderListing, source: Path) -> DataError | None:
    """Return the error of a source whose labels or images are in files of a kind that is not read, with the way out; None otherwise."""
    files = [path for _, path in zip(range(_MAX_FILES), listing.files_below(source), strict=False)]
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        by_suffix.setdefault(path.suffix.lower(), []).append(path)
    has_images = any(map(is_image_file, files))
    for explain in (_packed, _archives, _stacks, _image_scope, _matlab, _geographic):
        problem = explain(by_suffix, has_images)
        if problem:
            example, what, fix = problem
            return DataError(
                what, where=source, found=example.relative_to(source).as_posix(), fix=fix.format(_quoted(source))
            )
    return None


_Found = tuple[Path, str, str]
_Files = dict[str, list[Path]]


def _packed(files: _Files, has_images: bool) -> _Found | None:
    packed = [path for path in files.get(".gz", []) if suffix_of(path.with_suffix("")) in SUFFIXES]
    if not packed or has_images:
        return None
    return packed[0], f"{len(packed)} images are packed (.gz)", "unpack them: `gunzip -r {}`"


def _archives(files: _Files, has_images: bool) -> _Found | None:
    archives = [path for suffix in _ARCHIVES for path in files.get(suffix, [])]
    if not archives or has_images:
        return None
    return (
        archives[0],
        "holds archives, and no images",
        f"unpack them in {{}} ({archives[0].name} first), then try again",
    )


def _stacks(files: _Files, has_images: bool) -> _Found | None:
    stacks = [path for path in files.get(".npy", []) if len(_shape(path)) == _STACK_DIMENSIONS]
    if not stacks or any(is_image_file(p) for paths in files.values() for p in paths if p.suffix.lower() != ".npy"):
        return None
    shape = " x ".join(map(str, _shape(stacks[0])))
    return (
        stacks[0],
        f"{len(stacks)} files hold many images each (an array of {shape})",
        "save each image and its mask of class values, H x W, as files of equal names in images/ and masks/; then import {}",
    )


def _shape(path: Path) -> tuple[int, ...]:
    """Return the shape of an array in a file, from its header; () if it has none."""
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(stream, max_header_size=_PEEK_BYTES)[0]
    except (OSError, ValueError):
        return ()


def _image_scope(files: _Files, has_images: bool) -> _Found | None:
    regions = [path for path in files.get(".xml", [])[:20] if b"<Annotations" in _beginning(path)]
    if not regions or not has_images:
        return None
    return (
        regions[0],
        "its labels are regions in XML (Aperio ImageScope), which is not read",
        f"draw the regions of each image as a 16-bit label map (each region its number) into {_MASK_NAMES}; then import {{}}",
    )


def _matlab(files: _Files, has_images: bool) -> _Found | None:
    labels = [path for path in files.get(".mat", []) if role_of(path.parts[-3:-1]) == "mask"]
    if not labels or not has_images:
        return None
    return (
        labels[0],
        "its labels are files of MATLAB (.mat), which are not read",
        f"save the array of each (scipy.io.loadmat) as an 8-bit PNG of class values into {_MASK_NAMES}; then import {{}}",
    )


def _geographic(files: _Files, has_images: bool) -> _Found | None:
    polygons = files.get(".geojson", [])
    if not polygons or not has_images:
        return None
    return (
        polygons[0],
        "its labels are polygons in geographic coordinates (.geojson), which are not read",
        "burn them into a mask for each image (`gdal_rasterize -burn 255 -ot Byte` with the extent and size of the image) into "
        f"{_MASK_NAMES}; then import {{}}",
    )


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_PEEK_BYTES)
    except OSError:
        return b""


def _quoted(source: Path) -> str:
    return shlex.quote(str(source))
