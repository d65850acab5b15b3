"""OME-Zarr images and labels (OME-NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org), at full resolution; needs the package zarr."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds, decoder_errors_as_data_errors, max_bytes
from segpipe.data.images.formats.requirement import require
from segpipe.data.images.geometry import Geometry
from segpipe.errors import DataError
from segpipe.files import read_json

_ATTRIBUTES = (".zattrs", "zarr.json")
"""The file with the attributes of a group, in Zarr 2 and 3."""
_MAX_JSON_BYTES = 1 << 24
_MM_PER_UNIT = {
    "angstrom": 1e-7,
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "meter": 1e3,
}
_DEFAULT_AXES = ("t", "c", "z", "y", "x")


@dataclass(frozen=True)
class OmeImage:
    """The metadata of one image or label image.

    path: its folder.
    array: the folder of its array of full resolution, relative to `path`.
    axes: the names of the axes of the array, among t, c, z, y and x.
    channels: the names of its channels; empty if not every channel has one.
    spacing: the distance of pixels along z, y and x in mm; None if the file does not state a unit of length.
    labels: the names of its label images.
    """

    path: Path
    array: str
    axes: tuple[str, ...]
    channels: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None
    labels: tuple[str, ...] = ()


def is_multiscale(folder: Path) -> bool:
    """Return whether a folder is an image of OME-Zarr: a group with `multiscales`."""
    try:
        return isinstance(_attributes(folder).get("multiscales"), list)
    except DataError:
        return False


def read_ome_image(folder: Path) -> OmeImage:
    """Read the metadata of an image.

    Raises:
        DataError: they are damaged, or the array lies outside the folder.
    """
    with decoder_errors_as_data_errors(str(folder)):
        attributes = _attributes(folder)
        scales = attributes["multiscales"][0]
        axes = tuple(str(a["name"] if isinstance(a, dict) else a) for a in scales.get("axes", _DEFAULT_AXES))
        if axes[-2:] != ("y", "x") or not set(axes) <= set(_DEFAULT_AXES) or len(set(axes)) < len(axes):
            raise DataError(
                "the axes do not form an image or a volume", where=folder, found=" ".join(axes), expected="(t) (c) (z) y x",
                fix="export it with axes in this order",
            )  # fmt: skip
        array = str(scales["datasets"][0]["path"])
        if not (folder / array).resolve().is_relative_to(folder.resolve()):
            raise DataError("names an array outside its folder", where=folder, found=array, fix="correct the path")
        names = [str(c.get("label", "")) for c in (attributes.get("omero") or {}).get("channels") or []]
        has_names = bool(names) and all(names) and len({name.casefold() for name in names}) == len(names)
        labels: tuple[str, ...] = ()
        if (folder / "labels").is_dir():
            labels = tuple(str(name) for name in _attributes(folder / "labels").get("labels") or [])
        inside = tuple(
            name for name in labels if _is_inside(folder / "labels", name) and is_multiscale(folder / "labels" / name)
        )
        return OmeImage(folder, array, axes, tuple(names) if has_names else (), _spacing(scales, axes), inside)


def read_ome_array(image: OmeImage, limits: DataParams) -> np.ndarray:
    """Read an array of full resolution.

    Args:
        image: its metadata.
        limits: how large it may be.

    Returns:
        (H, W, C), or (D, H, W, C) for several planes; in the stored type.

    Raises:
        DataError: the array is too large or damaged, or holds several times.
        MissingError: zarr is not installed.
    """
    where = str(image.path)
    zarr = require("zarr", "zarr", where)
    with decoder_errors_as_data_errors(where):
        array = zarr.open_array(str(image.path / image.array), mode="r")
        if len(array.shape) != len(image.axes):
            raise DataError(
                "the axes do not fit the array",
                where=where,
                found=f"{len(array.shape)} axes",
                expected=" ".join(image.axes),
            )
        sizes = dict.fromkeys(_DEFAULT_AXES, 1) | dict(zip(image.axes, array.shape, strict=True))
        if sizes["t"] != 1:
            raise DataError(
                "holds several times", where=where, found=sizes["t"], expected="one time per image",
                fix="export each time as an image of its own",
            )  # fmt: skip
        Bounds.from_limits(limits).check(where, sizes["y"], sizes["x"], sizes["c"], sizes["z"])
        if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
            raise DataError("unsupported type of values", where=where, found=array.dtype, expected="integers or floats")
        chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        if chunk_bytes > max_bytes(limits):
            raise DataError(
                "a chunk is too large", where=where, found=f"{chunk_bytes:,} bytes", expected=f"at most {max_bytes(limits):,}",
                fix="store it in smaller chunks, or raise the limit (max_file_mb)",
            )  # fmt: skip
        values = np.asarray(array[...])
    values = values.reshape([sizes[axis] for axis in ("c", "z", "y", "x")] if _is_ordered(image.axes) else _fail(image))
    volume = np.moveaxis(values, 0, -1)
    volume = np.ascontiguousarray(volume if sizes["z"] > 1 else volume[0])
    return volume.astype(np.uint8) if volume.dtype == bool else volume


def plane_count(image: OmeImage) -> int:
    """Return the number of planes along z, from the metadata of the array; 1 if they cannot be read."""
    if "z" not in image.axes:
        return 1
    folder = image.path / image.array
    for name in (".zarray", "zarr.json"):
        try:
            if (folder / name).is_file():
                return int(read_json(folder / name, _MAX_JSON_BYTES)["shape"][image.axes.index("z")])
        except (DataError, KeyError, IndexError, TypeError, ValueError):  # reading the array reports the error
            return 1
    return 1


def volume_geometry(image: OmeImage) -> Geometry | None:
    """Return the geometry of a volume: the size of its voxels, without an orientation. None if the file states no unit."""
    if image.spacing is None:
        return None
    depth, height, width = image.spacing
    affine = np.diag([width, height, depth, 1.0])
    # a header of NIfTI with the size of voxels in mm, and no orientation (qform_code and sform_code 0)
    header = (
        ("pixdim", (1.0, width, height, depth)),
        ("qform_code", (0.0,)),
        ("sform_code", (0.0,)),
        ("xyzt_units", (2.0,)),
    )
    return Geometry(image.spacing, None, tuple(affine.ravel().tolist()), header=header)


def _attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of a group; those of OME-NGFF 0.5 are below `ome`. Empty if the folder is no group."""
    for name in _ATTRIBUTES:
        if (folder / name).is_file():
            content = read_json(folder / name, _MAX_JSON_BYTES)
            attributes = content.get("attributes") if name == "zarr.json" and isinstance(content, dict) else content
            if isinstance(attributes, dict):
                nested = attributes.get("ome")
                return nested if isinstance(nested, dict) else attributes
    return {}


def _is_inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _is_ordered(axes: tuple[str, ...]) -> bool:
    return list(axes) == [axis for axis in _DEFAULT_AXES if axis in axes]


def _fail(image: OmeImage) -> list[int]:
    raise DataError(
        "the axes are in an unusual order", where=image.path, found=" ".join(image.axes), expected="t c z y x",
        fix="export it with axes in this order",
    )  # fmt: skip


def _spacing(scales: dict[str, Any], axes: tuple[str, ...]) -> tuple[float, float, float] | None:
    """Return the size of a pixel along z, y and x in mm, from the scales of the array and of all resolutions together."""
    units = {a["name"]: a.get("unit") for a in scales.get("axes", []) if isinstance(a, dict)}
    factors = np.ones(len(axes))
    for transforms in (scales["datasets"][0].get("coordinateTransformations"), scales.get("coordinateTransformations")):
        for transform in transforms or []:
            if transform.get("type") == "scale" and len(transform.get("scale") or []) == len(axes):
                factors *= np.asarray(transform["scale"], np.float64)
    sizes = dict(zip(axes, factors.tolist(), strict=True))
    spacing = [sizes.get(axis, 1.0) * _MM_PER_UNIT.get(units.get(axis) or "", math.nan) for axis in ("z", "y", "x")]
    if "z" not in axes or not all(math.isfinite(value) and value > 0 for value in spacing):
        return None
    return spacing[0], spacing[1], spacing[2]
