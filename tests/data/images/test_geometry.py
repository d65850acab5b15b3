"""Volumes in any order of voxels: turned to RAS when they are read, and back when they are written. The oracle is nibabel."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import Item, load_sample
from segpipe.data.images import decode_geometry, decode_image, decode_image_with_notes, encode_nifti
from segpipe.errors import DataError
from segpipe.samples import ClassTable

LIMITS = DataParams()
TABLE = ClassTable.from_names(["a", "b", "c"])
ALL_ORDERS = ["".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)]
RNG = np.random.default_rng(3)
VOXELS = RNG.integers(0, 3000, (5, 4, 3)).astype(np.int16)


def in_order(voxels: np.ndarray, codes: str, qform: bool = True) -> nibabel.Nifti1Image:
    """Return a volume that is RAS in `voxels` as a file in another order of voxels at the same position in the world."""
    affine = np.diag([1.0, 1.5, 4.0, 1.0])
    affine[:3, 3] = (-10, 20, 3)
    ornt = nibabel.orientations.axcodes2ornt(codes)
    turn = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), ornt)
    stored = nibabel.orientations.apply_orientation(voxels, turn)
    new_affine = affine @ nibabel.orientations.inv_ornt_aff(turn, voxels.shape)
    image = nibabel.Nifti1Image(stored, new_affine, dtype=voxels.dtype)
    image.set_sform(new_affine, 2)
    image.set_qform(new_affine if qform else None, 1 if qform else 0)
    return image


@pytest.mark.parametrize("codes", ALL_ORDERS)
def test_every_order_of_voxels_decodes_to_the_same_array_and_is_written_back(codes: str) -> None:
    assert len(ALL_ORDERS) == 48
    file = in_order(VOXELS, codes)
    content = file.to_bytes()
    image, notes = decode_image_with_notes(content, "x", LIMITS)
    np.testing.assert_array_equal(image[..., 0], VOXELS.transpose(2, 1, 0))
    assert notes == ([] if codes == "RAS" else [f"turned from {codes} to RAS"])
    geometry = decode_geometry(content, "x")
    assert geometry is not None
    assert (geometry.orientation, geometry.spacing) == (codes, (4.0, 1.5, 1.0))
    written = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(image[..., 0], geometry)))
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(file.dataobj))
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_z"):
        np.testing.assert_array_equal(written.header[field], file.header[field], field)
    np.testing.assert_array_equal(written.header["pixdim"][:4], file.header["pixdim"][:4])


def test_a_header_without_orientation_is_left_in_its_order_and_keeps_its_codes() -> None:
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header.set_zooms((1, 1.5, 4))
    image.header["qform_code"] = image.header["sform_code"] = 0
    geometry = decode_geometry(image.to_bytes(), "x")
    assert geometry is not None
    assert (geometry.orientation, geometry.spacing) == (None, (4.0, 1.5, 1.0))
    decoded = decode_image(image.to_bytes(), "x", LIMITS)
    np.testing.assert_array_equal(decoded[..., 0], VOXELS.transpose(2, 1, 0))
    written = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(decoded[..., 0], geometry)))
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (0, 0)


def test_qform_and_sform_with_different_orientations_are_refused() -> None:
    image = in_order(VOXELS, "RAS")
    image.header.set_sform(np.diag([-1, -1.5, 4, 1]), 2)
    image.header["vox_offset"] = 352
    with pytest.raises(DataError, match="found RAS in the qform, LPS in the sform"):
        decode_image(image.header.binaryblock + bytes(4) + VOXELS.tobytes("F"), "x", LIMITS)


def test_the_affine_decides_on_the_voxel_size() -> None:
    image = nibabel.Nifti1Image(VOXELS, np.diag([0.5, 0.5, 0.5, 1]))
    image.header["pixdim"][1:4] = 1
    image.header["vox_offset"] = 352
    content = image.header.binaryblock + bytes(4) + VOXELS.tobytes("F")
    geometry = decode_geometry(content, "x")
    assert geometry is not None
    assert geometry.spacing == (0.5, 0.5, 0.5)
    notes = decode_image_with_notes(content, "x", LIMITS)[1]
    assert notes == ["voxels of 0.5 x 0.5 x 0.5 mm as the affine says, not 1 x 1 x 1 mm as pixdim says"]


@pytest.mark.parametrize(("image_order", "mask_order"), [("LPS", "LPS"), ("RAS", "LPS"), ("SRA", "LAS"), ("PIR", None)])
def test_image_and_mask_meet_whatever_their_orders(tmp_path: Path, image_order: str, mask_order: str | None) -> None:
    labels = RNG.integers(0, 3, VOXELS.shape).astype(np.uint8)
    nibabel.save(in_order(VOXELS, image_order), tmp_path / "x.nii.gz")
    mask = in_order(labels, mask_order or image_order)
    if mask_order is None:  # without an orientation it has the order of its image
        mask.set_sform(None, 0)
        mask.set_qform(None, 0)
    nibabel.save(mask, tmp_path / "m.nii.gz")
    sample = load_sample(Item("x", tmp_path / "x.nii.gz", tmp_path / "m.nii.gz"), TABLE, LIMITS)
    assert sample.labels is not None
    np.testing.assert_array_equal(sample.image[..., 0], VOXELS.transpose(2, 1, 0))
    np.testing.assert_array_equal(sample.labels, labels.transpose(2, 1, 0))


def test_a_mask_with_an_orientation_does_not_fit_an_image_without(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, None)
    nibabel.save(image, tmp_path / "x.nii.gz")
    nibabel.save(in_order(VOXELS.clip(0, 2).astype(np.uint8), "LPS"), tmp_path / "m.nii.gz")
    with pytest.raises(DataError, match="found a mask in LPS, an image without qform and sform"):
        load_sample(Item("x", tmp_path / "x.nii.gz", tmp_path / "m.nii.gz"), TABLE, LIMITS)
