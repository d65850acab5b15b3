"""Image files in, image files out. Everything is bounded before it is decoded: bytes first, then the header's pixels."""

from segpipe.data.images.bounds import max_bytes
from segpipe.data.images.decode import decode_geometry, decode_image, decode_image_with_notes, decode_mask, decode_mask_with_notes, read_image, read_mask, read_size
from segpipe.data.images.encode import encode_png, encode_stack, encode_tiff
from segpipe.data.images.merge import merge_channels
from segpipe.data.images.file_names import SUFFIXES, VOLUME_SUFFIXES, image_files, is_image_file, stem_of, suffix_of
from segpipe.data.images.nifti import Geometry, encode_nifti

__all__ = [
    "SUFFIXES", "VOLUME_SUFFIXES", "Geometry", "decode_geometry", "decode_image", "decode_image_noting", "decode_mask",
    "decode_mask_noting", "encode_nifti", "encode_png", "encode_stack", "encode_tiff", "image_files", "is_image_file", "max_bytes",
    "merge_channels", "read_image", "read_mask", "read_size", "stem_of", "suffix_of",
]
