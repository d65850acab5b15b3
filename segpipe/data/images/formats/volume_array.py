"""A decoded volume with the position that its file states, before it is turned to RAS."""

from __future__ import annotations

import numpy as np

from segpipe.data.images.geometry import Geometry, oriented_geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM, NRRD and MetaImage count to the left and to the back; NIfTI counts to the right and to the front."""


def affine_of(directions: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) of three axis vectors (3, 3), one per row with the length of a voxel in mm, and an origin (3,) in mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, np.float64).T
    affine[:3, 3] = origin
    return affine


def geometry_of(affine: np.ndarray, shape: tuple[int, int, int], where: str) -> Geometry:
    """Return the geometry of a volume.

    Args:
        affine: (4, 4), from (i, j, k, 1) of the file to mm in RAS.
        shape: the size of the stored volume along i, j, k.
        where: the name of the file in errors.
    """
    return oriented_geometry(affine, shape, where)
