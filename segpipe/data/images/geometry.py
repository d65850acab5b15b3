"""`Geometry`: where a volume is in the patient or specimen, and how its file orders the voxels.

Decoded volumes are in one order, whatever the order of the file: RAS, in which the axes i, j, k of NIfTI point to the right, to the front
(anterior) and to the top (superior). So a network never sees mirrored or exchanged axes. `encode_nifti` turns a volume back.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from segpipe.errors import DataError

CANONICAL = "RAS"
"""The directions of the axes i, j, k of every decoded volume whose file states its orientation."""

SIZE_TOLERANCE = 1e-3
"""Voxel sizes that differ by less than this share are equal: programs store them in 32 bits."""
_AXES_OF_RAS = ((0, 1), (1, 1), (2, 1))


@dataclass(frozen=True)
class Geometry:
    """The position and orientation of a volume in the patient or specimen.

    Attributes:
        spacing: the size of a voxel in mm along (D, H, W) of the decoded volume, which is (k, j, i).
        orientation: the directions in which the axes i, j, k of the *file* point, for example "LPS" (left, posterior, superior); None if
            the file does not state them. The decoded volume is then in the order of the file.
        affine: the matrix from (i, j, k, 1) of the decoded volume to mm, 4 x 4, row by row.
        axes: for each axis i, j, k of the file, the axis of the decoded volume and its direction (1 or -1).
        stored_affine: the affine of the voxels in the order of the file; empty if it equals `affine`.
        header: the fields of a NIfTI header that state the position, with their values; empty for other formats.
    """

    spacing: tuple[float, float, float]
    orientation: str | None
    affine: tuple[float, ...]
    axes: tuple[tuple[int, int], ...] = _AXES_OF_RAS
    stored_affine: tuple[float, ...] = ()
    header: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @property
    def is_turned(self) -> bool:
        """True if the decoded volume has another order of voxels than the file."""
        return self.axes != _AXES_OF_RAS

    def offset(self, other: Geometry, shape: tuple[int, ...]) -> float:
        """Compute how far apart two headers place the corners of a volume.

        Args:
            other: the other geometry.
            shape: (D, H, W), the size of both volumes.

        Returns:
            The largest distance along an axis, in voxels of this geometry.
        """
        affine, other_affine = (np.reshape(geometry.affine, (4, 4)) for geometry in (self, other))
        corners = np.transpose([[*corner, 1] for corner in itertools.product(*((0, edge - 1) for edge in shape[::-1]))])
        other_corners = np.linalg.lstsq(affine, other_affine @ corners, rcond=None)[0]
        return float(np.abs(other_corners - corners).max())

    def to_canonical(self, stored: np.ndarray) -> np.ndarray:
        """Turn voxels in the order of the file, (D, H, W) or (D, H, W, C), to the order of decoded volumes."""
        return self._turned(stored, self.axes)

    def to_stored(self, canonical: np.ndarray) -> np.ndarray:
        """Turn voxels in the order of decoded volumes, (D, H, W) or (D, H, W, C), back to the order of the file."""
        back = [(0, 1)] * 3
        for axis, (target, direction) in enumerate(self.axes):
            back[target] = (axis, direction)
        return self._turned(canonical, tuple(back))

    def as_stored(self) -> Geometry:
        """Return the geometry of voxels that stay in the order of the file."""
        if not self.is_turned:
            return self
        affine = self.stored_affine or self.affine
        lengths = np.linalg.norm(np.reshape(affine, (4, 4))[:3, :3], axis=0)
        spacing = shortest_decimal(lengths[2]), shortest_decimal(lengths[1]), shortest_decimal(lengths[0])
        return Geometry(spacing, self.orientation, affine, header=self.header)

    def _turned(self, voxels: np.ndarray, axes: tuple[tuple[int, int], ...]) -> np.ndarray:
        if axes == _AXES_OF_RAS:
            return voxels
        from nibabel.orientations import apply_orientation

        channels = range(3, voxels.ndim)
        turned = apply_orientation(voxels.transpose(2, 1, 0, *channels), axes)
        return np.ascontiguousarray(turned.transpose(2, 1, 0, *channels))


def oriented_geometry(
    stored_affine: np.ndarray,
    shape: tuple[int, int, int],
    where: str,
    header: tuple[tuple[str, tuple[float, ...]], ...] = (),
    stated_sizes: np.ndarray | None = None,
) -> Geometry:
    """Return the geometry of a file that states its orientation.

    Args:
        stored_affine: (4, 4), from (i, j, k, 1) of the file to mm in RAS.
        shape: the size of the stored volume along i, j, k.
        where: the name of the file in errors.
        header: see `Geometry`.
        stated_sizes: (3,), the voxel sizes in mm that the file states apart from its affine. They are used where they are equal to those of
            the affine up to rounding, because fewer operations have rounded them.

    Raises:
        DataError: if the affine does not give three axes with a length.
    """
    from nibabel.orientations import aff2axcodes, inv_ornt_aff, io_orientation

    lengths = np.linalg.norm(stored_affine[:3, :3], axis=0)
    check_lengths(lengths, stored_affine, where)
    orientation = io_orientation(stored_affine)
    if np.isnan(orientation).any():
        raise DataError(
            "the axes of the volume do not span a space",
            where=where,
            found="an affine with parallel axes",
            expected="three axes in different directions",
            fix="write the header again with the values of the scanner",
        )
    axes = tuple((int(axis), int(direction)) for axis, direction in orientation)
    affine = stored_affine if axes == _AXES_OF_RAS else stored_affine @ inv_ornt_aff(orientation, shape)
    if stated_sizes is not None:
        lengths = np.where(np.isclose(stated_sizes, lengths, rtol=SIZE_TOLERANCE), stated_sizes, lengths)
    by_axis = {axis: lengths[index] for index, (axis, _) in enumerate(axes)}
    spacing = shortest_decimal(by_axis[2]), shortest_decimal(by_axis[1]), shortest_decimal(by_axis[0])
    codes = "".join(aff2axcodes(stored_affine))
    return Geometry(
        spacing,
        codes,
        tuple(affine.ravel().tolist()),
        axes,
        () if axes == _AXES_OF_RAS else tuple(stored_affine.ravel().tolist()),
        header,
    )


def check_lengths(lengths: np.ndarray, affine: np.ndarray, where: str) -> None:
    """Raise DataError if a header does not give three positive voxel sizes and a finite affine."""
    if not (all(math.isfinite(v) and v > 0 for v in lengths) and np.isfinite(affine).all()):
        raise DataError(
            "the header states no voxel size",
            where=where,
            found=" x ".join(f"{v:g}" for v in lengths),
            expected="three positive numbers and a finite affine",
            fix="write the header again with the values of the scanner",
        )


def shortest_decimal(value: float) -> float:
    """Return a number stored in 32 bits as its shortest decimal form: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def align_mask(
    mask: np.ndarray, mask_geometry: Geometry | None, image_geometry: Geometry | None, where: str
) -> np.ndarray:
    """Bring a decoded mask to the order of its decoded image.

    A mask whose file states no orientation is taken to have the order of the file of its image.

    Args:
        mask: (H, W) or (D, H, W).
        mask_geometry: that of the file of the mask.
        image_geometry: that of the file of the image.
        where: the name of the mask in errors.

    Returns:
        The mask in the order of the decoded image.

    Raises:
        DataError: the mask states its orientation and the image does not, so that nobody can know whether they fit.
    """
    mask_orientation, image_orientation = (
        None if geometry is None else geometry.orientation for geometry in (mask_geometry, image_geometry)
    )
    if mask_orientation == image_orientation or mask.ndim != 3:
        return mask
    if mask_orientation is None:
        return image_geometry.to_canonical(mask) if image_geometry is not None else mask
    if image_orientation is None and mask_geometry is not None:
        if not mask_geometry.is_turned or image_geometry is None:
            return mask_geometry.to_stored(mask)
        raise DataError(
            "the mask states its orientation and the image does not",
            where=where,
            found=f"a mask in {mask_orientation}, an image without qform and sform",
            expected="both with an orientation",
            fix="write the orientation into the header of the image",
        )
    return mask
