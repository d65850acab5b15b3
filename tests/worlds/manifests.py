"""Manifests that pass every check of the data, and the verdict on them."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pandas as pd

from segpipe.config import ValidateParams
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.drift.reference import Reference
from segpipe.samples import ClassTable
from segpipe.validation.expectations import validate_manifest
from segpipe.validation.findings import Finding

TABLE = ClassTable.from_names(["background", "cell", "dirt"])


def sound_manifest(count: int = 12) -> pd.DataFrame:
    """Return a manifest that passes every check; rows 0 and 1 are test, 2 and 3 val, the others train."""
    rows = [
        {
            "key": f"k{i:02d}",
            "path": f"images/k{i:02d}.png",
            "mask_path": f"masks/k{i:02d}.png",
            "instances_path": None,
            "sha256": f"{i:064d}",
            "mask_sha256": f"{i + 100:064d}",
            "instances_sha256": None,
            "phash": sha256(str(i).encode()).hexdigest()[:16],
            "miniature": np.random.default_rng(i).bytes(48 * 48),
            "height": 10,
            "width": 20,
            "channels": 3,
            "dtype": "uint8",
            "mask_height": 10,
            "mask_width": 20,
            "mean": np.full(3, 100.0),
            "std": np.full(3, 20.0),
            "low": np.zeros(3),
            "high": np.full(3, 255.0),
            "class_pixels": np.array([120, 60, 20]),
            "ignored_pixels": 0,
            "unknown_values": "{}",
            "n_instances": None,
            "depth": None,
            "mask_depth": None,
            "spacing": None,
            "mask_spacing": None,
            "orientation": None,
            "mask_orientation": None,
            "mask_offset": None,
            "sharpness": 0.02,
            "smallest_component": 20,
            "instance_areas": None,
            "notes": np.array([]),
            "group": f"g{i}",
            "split": ["test", "val", "train"][min(i // 2, 2)],
            "split_given": False,
            "error": None,
        }
        for i in range(count)
    ]
    whole = [
        "depth",
        "height",
        "width",
        "channels",
        "mask_depth",
        "mask_height",
        "mask_width",
        "ignored_pixels",
        "n_instances",
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))


def judge(
    frame: pd.DataFrame, table: ClassTable = TABLE, before: Reference | None = None, crop: int = 256, **params: object
) -> list[Finding]:
    """Validate a manifest with these thresholds, and return the findings."""
    fingerprint = make_fingerprint(frame, table)
    return validate_manifest(frame, fingerprint, ValidateParams.model_validate(params), before, crop).findings


def set_values(frame: pd.DataFrame, row: int, **values: object) -> None:
    """Set columns of a row, also to arrays."""
    for column, value in values.items():
        if isinstance(value, np.ndarray):  # pandas would store the element of an array of one element
            frame[column] = pd.Series([value if index == row else old for index, old in enumerate(frame[column])])
        else:
            frame.at[row, column] = value
