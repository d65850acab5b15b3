"""Read and write image files. Everything is bounded before it is decoded: first by the size of the file, then by its header."""

from segpipe.data.images.bounds import max_bytes
from segpipe.data.images.decode import (
    class_values,
    decode_geometry,
    decode_image,
    decode_image_and_nodata,
    decode_image_with_notes,
    decode_mask,
    decode_mask_with_notes,
    decode_orientation,
    decode_stored,
    read_aligned_mask,
    read_image,
    read_mask,
    read_size,
    read_stored,
)
from segpipe.data.images.encode import encode_png, encode_stack, encode_tiff
from segpipe.data.images.file_names import SUFFIXES, VOLUME_SUFFIXES, image_files, is_image_file, stem_of, suffix_of
from segpipe.data.images.formats.detached import JOINED_SUFFIXES, data_file, is_detached, read_image_file
from segpipe.data.images.geometry import Geometry, align_mask
from segpipe.data.images.merge import merge_channels
from segpipe.data.images.nifti import encode_nifti
from segpipe.data.images.tiff_axes import channel_names

__all__ = [
    "JOINED_SUFFIXES",
    "SUFFIXES",
    "VOLUME_SUFFIXES",
    "Geometry",
    "align_mask",
    "channel_names",
    "class_values",
    "data_file",
    "decode_geometry",
    "decode_image",
    "decode_image_and_nodata",
    "decode_image_with_notes",
    "decode_mask",
    "decode_mask_with_notes",
    "decode_orientation",
    "decode_stored",
    "encode_nifti",
    "encode_png",
    "encode_stack",
    "encode_tiff",
    "image_files",
    "is_detached",
    "is_image_file",
    "max_bytes",
    "merge_channels",
    "read_aligned_mask",
    "read_image",
    "read_image_file",
    "read_mask",
    "read_size",
    "read_stored",
    "stem_of",
    "suffix_of",
]
