"""The columns of the manifest: one row per image, with everything that later stages need to know without opening its files again.

Types are Python types; a list holds one value per channel unless the table says otherwise. Every column except key, path and
split_given may be empty (None, or NA in an integer column). H, W and D stand for height, width and depth (number of slices).

| column | type | content |
|---|---|---|
| key | str | the name of the image: its file name without the ending |
| group | str | images of one group (patient, slide, video) are never in two splits |
| split | str | train, val or test; empty for an image in the gap between two ranges |
| split_given | bool | True if samples.csv sets the split |
| fold | int | 0 .. `split.folds` - 1; empty without `split.folds` |
| path, mask_path, instances_path | str | the image, its mask, and the map of instance ids; relative to data/ |
| sha256, mask_sha256, instances_sha256 | str | SHA-256 of the bytes of these files, 64 hexadecimal digits |
| phash | str | perceptual hash (DCT) of the image, or of the middle slice of a volume: 64 bits as 16 hexadecimal digits |
| miniature | bytes | that picture in grey at 48 x 48 pixels, row by row: 2,304 bytes; for finding near-duplicates whose hashes differ |
| depth | int | slices of a volume; empty for an image (2D) |
| height, width | int | pixels |
| channels | int | number of channels, without alpha |
| dtype | str | type of the decoded values: uint8, uint16 or float32 |
| mask_depth, mask_height, mask_width | int | size of the mask in pixels; mask_depth is empty for a 2D mask |
| spacing, mask_spacing | list[float] | size of a voxel in mm along (D, H, W); only if the file states it |
| orientation, mask_orientation | str | axis codes of the file's affine, for example "RAS"; only if the file states it |
| mask_offset | float | the largest distance, in voxels along an axis, between a corner of the volume according to the header of the \
image and the same corner according to the header of the mask; only if both headers state it and the sizes are equal |
| minimum, maximum | list[float] | the smallest and the largest stored value |
| whole_numbers | bool | True if all values are whole numbers |
| channel_names | list[str] | the names that the file gives its channels; empty if it gives none |
| mean, std | list[float] | mean and standard deviation of all stored values |
| low, high | list[float] | the 0.5th and the 99.5th percentile of all stored values |
| sharpness | float | variance of the Laplacian of the grey image, whose intensity window is scaled to 0..1 \
(`segpipe.data.images.statistics.sharpness`) |
| class_pixels | list[int] | the number of pixels of each class, by class id |
| ignored_pixels | int | the number of pixels with an ignored value |
| unknown_values | str | JSON {value: number of pixels} of the values that the class table does not list |
| smallest_component | int | pixels of the smallest connected component of any class except the background (8 neighbours, 26 in a \
volume); empty if there is no component or if the mask has too many runs (`connected_components.MAX_RUNS`) |
| n_instances | int | the number of instances; empty without a map of instance ids |
| instance_areas | list[int] | pixels of each instance, in ascending order of instance ids |
| notes | list[str] | conversions made while reading: "alpha channel dropped", "mask: 1-bit grey spread over 0 to 255" |
| error | str | why the row could not be filled; empty for a valid row |
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
"""One row of the manifest: the value of each column by its name."""

COLUMNS: dict[str, Any] = {
    "key": str,
    "path": str,
    "mask_path": str,
    "instances_path": str,
    "sha256": str,
    "mask_sha256": str,
    "instances_sha256": str,
    "phash": str,
    "miniature": bytes,
    "depth": int,
    "height": int,
    "width": int,
    "channels": int,
    "dtype": str,
    "mask_depth": int,
    "mask_height": int,
    "mask_width": int,
    "spacing": list[float],
    "mask_spacing": list[float],
    "orientation": str,
    "mask_orientation": str,
    "mask_offset": float,
    "minimum": list[float],
    "maximum": list[float],
    "whole_numbers": bool,
    "channel_names": list[str],
    "mean": list[float],
    "std": list[float],
    "low": list[float],
    "high": list[float],
    "sharpness": float,
    "class_pixels": list[int],
    "ignored_pixels": int,
    "unknown_values": str,
    "smallest_component": int,
    "n_instances": int,
    "instance_areas": list[int],
    "group": str,
    "split": str,
    "split_given": bool,
    "fold": int,
    "notes": list[str],
    "error": str,
}
"""The type of each column, in the order in which they are stored."""

HASH_COLUMNS = {"path": "sha256", "mask_path": "mask_sha256", "instances_path": "instances_sha256"}
"""For each column with the path of a file, the column with the hash of that file."""
