"""HDF5 files that hold an image or a mask as a dataset; needs the package h5py (`segpipe[hdf5]`)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from segpipe.data.images.arrays import IMAGE_NAMES, MASK_NAMES, arranged, array_layout
from segpipe.data.images.bounds import Bounds, decoder_errors_as_data_errors
from segpipe.data.images.formats.requirement import require
from segpipe.errors import DataError

_MAX_DATASETS = 1000


def is_hdf5(content: bytes) -> bool:
    """Return whether the bytes begin like an HDF5 file."""
    return content[:8] == b"\x89HDF\r\n\x1a\n"


def decode_hdf5(content: bytes, where: str, bounds: Bounds, is_mask: bool) -> tuple[np.ndarray, list[str]]:
    """Decode the image or the mask of an HDF5 file: its only dataset, or the one with a usual name (`image`, `mask` ...).

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file. `bounds.pages` says what the first axis of three long ones is.
        is_mask: True to look for a mask.

    Returns:
        (H, W, C) or (D, H, W, C), in the stored type, and the conversions that were made.

    Raises:
        DataError: if the file is too large or damaged, or if it is not clear which dataset is meant.
        MissingError: if h5py is not installed.
    """
    h5py = require("h5py", "hdf5", where)
    with decoder_errors_as_data_errors(where), h5py.File(io.BytesIO(content), "r") as file:
        datasets = _datasets(h5py, file)
        usual_names = MASK_NAMES if is_mask else IMAGE_NAMES
        names = (
            list(datasets)
            if len(datasets) == 1
            else [n for n in datasets if n.rsplit("/", 1)[-1].lower() in usual_names]
        )
        if len(names) != 1:
            raise DataError(
                f"no single dataset is the {'mask' if is_mask else 'image'}",
                where=where,
                found=", ".join(list(datasets)[:10]) or "no dataset of numbers",
                expected=f"one dataset, or one called {' or '.join(usual_names[:2])}",
                fix="save one image per file, with the dataset names image and mask",
            )
        dataset = datasets[names[0]]
        if dataset.external:
            raise DataError("keeps its data in another file", where=where, fix="save the data into the file itself")
        kind = array_layout(dataset.shape, bounds, where)
        array, notes = arranged(dataset[()], kind)
    return array, [*([f"dataset {names[0]} of {len(datasets)}"] if len(datasets) > 1 else []), *notes]


def _datasets(h5py: Any, file: Any) -> dict[str, Any]:
    """Return the datasets of numbers with at least two axes, by their paths. Links to other files are not followed."""
    by_path: dict[str, Any] = {}

    def visit(name: str, node: Any) -> bool | None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "buif" and node.ndim >= 2:
            by_path[name] = node
        return True if len(by_path) >= _MAX_DATASETS else None

    file.visititems(visit)
    return by_path
