"""Volumes in two files, a header and its data: NIfTI and Analyze 7.5 (.hdr and .img), MetaImage (.mhd) and NRRD (.nhdr).

Both files are joined to the bytes of one file of the same format (Analyze: NIfTI), which the decoders of that format read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
from pathlib import Path
from typing import Any

from segpipe.config import DataParams
from segpipe.data.images.bounds import RESTORE_FIX, decoder_errors_as_data_errors, max_bytes
from segpipe.errors import DataError
from segpipe.files import read_bytes

JOINED_SUFFIXES = {".hdr": ".nii", ".mhd": ".mha", ".nhdr": ".nrrd"}
"""The suffix of a header file, and that of the file that it and its data become."""
_MAX_HEADER = 1 << 16
_ANALYZE_BYTES = 348
_NIFTI_BYTES = {348: 352, 540: 544}
_META_DATA_FILE = re.compile(rb"^\s*ElementDataFile\s*=\s*(.*?)\s*$", re.MULTILINE)
_NRRD_DATA_FILE = re.compile(rb"^data ?file:\s*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_HEADER_SIZE = re.compile(rb"^\s*HeaderSize\s*=\s*(-?\d+)", re.MULTILINE)


def is_detached(path: Path) -> bool:
    """Return whether a file is named like a header whose data are in another file."""
    return path.suffix.lower() in JOINED_SUFFIXES


def read_image_file(path: Path, limits: DataParams) -> bytes:
    """Read the bytes of an image or volume file; a header is joined with its data.

    Args:
        path: the file, or the header.
        limits: how large each of both files may be.

    Raises:
        DataError: a file is missing or too large, or the header is damaged or names data in several files.
    """
    content = read_bytes(path, max_bytes(limits))
    suffix = path.suffix.lower()
    if suffix not in JOINED_SUFFIXES or (suffix == ".nhdr" and not _NRRD_DATA_FILE.search(content[:_MAX_HEADER])):
        return content
    with decoder_errors_as_data_errors(str(path)):
        join = {".hdr": _join_nifti, ".mhd": _join_metaimage, ".nhdr": _join_nrrd}[suffix]
        return join(path, content, limits)


def data_file(header: Path) -> Path | None:
    """Return the file with the data of a header, for lists of the files that were used; None if there is none."""
    if not is_detached(header):
        return None
    with contextlib.suppress(DataError, OSError):
        if header.suffix.lower() == ".hdr":
            return _img_file(header)
        with header.open("rb") as stream:
            content = stream.read(_MAX_HEADER)
        pattern = _META_DATA_FILE if header.suffix.lower() == ".mhd" else _NRRD_DATA_FILE
        if match := pattern.search(content):
            return _named_file(header, match[1])
    return None


def _img_file(header: Path) -> Path:
    for suffix in (".img", ".IMG", ".img.gz"):
        if (path := header.with_name(header.name[: -len(".hdr")] + suffix)).is_file():
            return path
    raise DataError(
        "is a header without voxel data", where=header, expected=f"{header.stem}.img beside it",
        fix="restore the .img file, or leave the header out",
    )  # fmt: skip


def _named_file(header: Path, name: bytes) -> Path:
    """Return the file that a header names; it must lie in the folder of the header or below."""
    text = name.decode("utf-8", "replace").replace("\\", "/")
    if text.upper().startswith("LIST") or re.search(r"%\d*d", text) or not text:
        raise DataError(
            "keeps its data in several files", where=header, found=text or "no name", expected="one data file",
            fix="save it as one file (.nii.gz, .nrrd or .mha)",
        )  # fmt: skip
    path = (header.parent / text).resolve()
    if not path.is_relative_to(header.parent.resolve()):
        raise DataError(
            "names a file outside its folder", where=header, found=text, expected="a file beside the header",
            fix="put the data file beside the header, and correct its name there",
        )  # fmt: skip
    if not path.is_file():
        raise DataError(
            "its data file is missing", where=header, found=text, expected="a file beside the header",
            fix="restore the data file, or correct its name in the header",
        )  # fmt: skip
    return path


def _join_nifti(path: Path, content: bytes, limits: DataParams) -> bytes:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    size = next((n for n in _NIFTI_BYTES if n in (int.from_bytes(content[:4], o) for o in ("little", "big"))), None)
    if size is None or len(content) < size:
        raise DataError(
            "is not the header of a volume", where=path, found="another kind of .hdr file (ENVI, Radiance) or a damaged one",
            expected="a NIfTI or Analyze header of 348 bytes", fix="convert the volume to .nii.gz, or leave the file out",
        )  # fmt: skip
    block = content[:size]
    if size == _ANALYZE_BYTES and block[344:347] not in (b"ni1", b"n+1"):
        header, offset = _from_analyze(block)
    else:
        header = (Nifti1Header if size == _ANALYZE_BYTES else Nifti2Header)(block, check=False)
        offset = int(header["vox_offset"])
    data = _img_data(_img_file(path), offset, _data_bytes(header), limits)
    header["magic"] = b"n+1" if size == _ANALYZE_BYTES else header["magic"].tobytes().replace(b"ni2", b"n+2")
    header["vox_offset"] = _NIFTI_BYTES[size]
    return header.binaryblock + bytes(_NIFTI_BYTES[size] - size) + data


def _from_analyze(block: bytes) -> tuple[Any, int]:
    """Return a NIfTI header with the shape, type, voxel size and scale of an Analyze header, and where its data begin.

    Analyze 7.5 states no orientation that programs agree on, so the NIfTI header states none.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.spm99analyze import Spm99AnalyzeHeader

    analyze = Spm99AnalyzeHeader(block, check=False)
    header = Nifti1Header(endianness=analyze.endianness)
    header.set_data_dtype(analyze.get_data_dtype())
    shape = analyze.get_data_shape()
    header.set_data_shape(shape)
    header["pixdim"][: len(shape) + 1] = [1, *analyze["pixdim"][1 : len(shape) + 1]]
    slope = analyze.get_slope_inter()[0]
    header.set_slope_inter(1 if slope is None else slope, 0)
    header.set_xyzt_units("mm")
    return header, int(analyze["vox_offset"])


def _data_bytes(header: Any) -> int:
    size = int(header.get_data_dtype().itemsize)
    for edge in header.get_data_shape():
        size *= int(edge)
    return size


def _img_data(path: Path, offset: int, size: int, limits: DataParams) -> bytes:
    """Return the voxels of an .img file; a compressed one is inflated only as far as the header announces voxels."""
    content = read_bytes(path, max_bytes(limits))
    if offset < 0 or size > max_bytes(limits):
        raise DataError(
            "the header gives an invalid position or size of the voxels", where=path,
            found=f"{size:,} bytes at {offset:,}", fix=RESTORE_FIX,
        )  # fmt: skip
    if content[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            content = stream.read(offset + size)
    return content[offset : offset + size]


def _join_metaimage(path: Path, content: bytes, limits: DataParams) -> bytes:
    match = _META_DATA_FILE.search(content[:_MAX_HEADER])
    if match is None:
        raise DataError("cannot be decoded: cut short in the header", where=path, fix=RESTORE_FIX)
    if match[1].upper() == b"LOCAL":
        return content
    data = read_bytes(_named_file(path, match[1]), max_bytes(limits))
    skip = _HEADER_SIZE.search(content[: match.start()])
    if skip and int(skip[1]) < 0:
        raise DataError(
            "the position of the values in the data file is not stated", where=path, found="HeaderSize = -1",
            expected="HeaderSize of 0 or more", fix="save it as one .mha file",
        )  # fmt: skip
    return content[: match.start()] + b"\nElementDataFile = LOCAL\n" + data[int(skip[1]) if skip else 0 :]


def _join_nrrd(path: Path, content: bytes, limits: DataParams) -> bytes:
    match = _NRRD_DATA_FILE.search(content[:_MAX_HEADER])
    assert match is not None, "the caller has seen it"
    data = read_bytes(_named_file(path, match[1]), max_bytes(limits))
    header = content[: match.start()] + content[match.end() :].lstrip(b"\r\n")
    return header.rstrip(b"\r\n\0 ") + b"\n\n" + data
