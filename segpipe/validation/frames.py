"""The frames that are checked: the manifest as plain numbers and words, and one frame each about classes, splits, groups and drift.

Every frame has a column `subject` that names its row. An empty cell means that the check does not apply to the row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segpipe.config import ValidateParams
from segpipe.data.classes import is_background
from segpipe.data.few_groups import FEW_GROUPS
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.manifest.table import labelled_pixels, usable
from segpipe.data.splits import SPLITS
from segpipe.drift.comparison import Drift
from segpipe.samples import ClassTable
from segpipe.validation.duplicates import exact_copies, near_duplicates
from segpipe.validation.outliers import brightness_z, size_ratio, softness
from segpipe.validation.unknown_values import describe_unknown_values, suggest_fix
from segpipe.words import listed

if TYPE_CHECKING:
    import pandas as pd

About = Literal["image", "class", "presence", "labels", "split", "group", "drift"]


def image_frame(manifest: pd.DataFrame, fingerprint: Fingerprint, params: ValidateParams, crop: int) -> pd.DataFrame:
    """Make the frame of images: one row per image, or per mask without an image.

    Args:
        manifest: the manifest.
        fingerprint: the dataset in numbers.
        params: the thresholds of near-duplicates.
        crop: edge of a training crop in pixels, with which instances are compared.
    """
    import pandas as pd

    table = fingerprint.classes
    readable = manifest["error"].isna()
    frame = pd.DataFrame({"subject": manifest["path"], "key": manifest["key"], "split": manifest["split"]})
    frame["error"] = manifest["error"]
    frame["trouble"], frame["required"], frame["remedy"] = _split_errors(manifest)
    frame["without_mask"] = manifest["key"].where(readable & manifest["mask_path"].isna())
    frame["image_size"] = _sizes(manifest, "width", "height", "depth")
    frame["mask_size"] = _sizes(manifest, "mask_width", "mask_height", "mask_depth")
    frame["spacing"], frame["mask_spacing"] = manifest["spacing"].map(_in_mm), manifest["mask_spacing"].map(_in_mm)
    frame["orientation"], frame["mask_orientation"] = manifest["orientation"], manifest["mask_orientation"]
    # decoded volumes and labels are both in RAS, so that two orders of voxels fit if the corners do
    fits = manifest["mask_offset"].astype(float) <= _MAX_OFFSET
    frame["mask_orientation"] = frame["mask_orientation"].where(~fits, frame["orientation"])
    same_grid = (frame["spacing"] == frame["mask_spacing"]) & (frame["orientation"] == frame["mask_orientation"])
    frame["mask_offset"] = manifest["mask_offset"].where(same_grid)  # the two other checks report different grids
    unknown = [json.loads(text) if isinstance(text, str) else {} for text in manifest["unknown_values"]]
    all_unknown = {int(value) for values in unknown for value in values}
    frame["unknown_pixels"] = [int(sum(values.values())) for values in unknown]
    frame["unknown_text"] = [describe_unknown_values(values) for values in unknown]
    frame["unknown_fix"] = [suggest_fix(values, all_unknown, table) for values in unknown]
    frame["known_text"] = listed((f"{spec.value} ({spec.name})" for spec in table.classes), at_most=12)
    frame["channels"], frame["usual_channels"] = manifest["channels"], fingerprint.channels
    volume = manifest["depth"].notna()
    frame["axes"] = pd.Series(np.where(volume, "3D", "2D"), manifest.index).where(manifest["height"].notna(), None)
    frame["usual_axes"] = "3D" if fingerprint.depth is not None and volume[readable].mean() > 0.5 else "2D"
    frame["dtype"], frame["usual_dtype"] = manifest["dtype"].where(~volume), fingerprint.dtype
    frame["volume_dtype"] = manifest["dtype"].where(volume)
    frame["contrast"] = [float(stds.max()) if isinstance(stds, np.ndarray) else None for stds in manifest["std"]]
    counts = zip(manifest["class_pixels"], labelled_pixels(manifest, table.overlapping), strict=True)
    shares = [_foreground(pixels, labelled, table) for pixels, labelled in counts]
    frame["foreground"], frame["main_class"] = [share for share, _ in shares], [name for _, name in shares]
    frame["size_conflict"] = [_first_note(notes, "as the affine says") for notes in manifest["notes"]]
    frame["converted"] = [", ".join(notes) if notes is not None and len(notes) else None for notes in manifest["notes"]]
    return frame.join(exact_copies(manifest)).join(_lookalikes(manifest, params)).join(_outliers(manifest, crop))


_MAX_OFFSET = 0.5
"""Voxels by which the corners of a volume and its label may be apart, as in the check `origins_match`."""
_EXPECTED = re.compile(r"(.*?) \((?:found (.*?), )?expected (.*)\)")


def _split_errors(manifest: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Split the message of each error into what is wrong, what is expected and what to do. The file is named in another column."""
    troubles, expectations, remedies = [], [], []
    for path, error in zip(manifest["path"], manifest["error"], strict=True):
        trouble, _, remedy = (error if isinstance(error, str) else "").removeprefix(f"{path}: ").partition(". Fix: ")
        what, actual, expected = match.groups() if (match := _EXPECTED.fullmatch(trouble)) else (trouble, None, None)
        troubles.append(f"{what} (found {actual})" if actual else what)
        expectations.append(expected or "a usable file")
        remedies.append(remedy or "restore the file, or remove it from the data")
    return troubles, expectations, remedies


def _sizes(manifest: pd.DataFrame, *names: str) -> list[str | None]:
    import pandas as pd

    rows = zip(*(manifest[name] for name in names), strict=True)
    return [None if pd.isna(row[0]) else " x ".join(str(edge) for edge in row if not pd.isna(edge)) for row in rows]


def _first_note(notes: Sequence[str] | None, text: str) -> str | None:
    """Return the first note that contains a text; None if there is none."""
    return next((note for note in notes if text in note), None) if notes is not None else None


def _in_mm(spacing: Any) -> str | None:
    """Describe a voxel size, rounded so that equal values of headers, which are float32, compare equal."""
    return None if not isinstance(spacing, np.ndarray) else " x ".join(f"{edge:.4g}" for edge in spacing) + " mm"


def _lookalikes(manifest: pd.DataFrame, params: ValidateParams) -> pd.DataFrame:
    import pandas as pd

    lookalikes = near_duplicates(
        manifest, params.near_duplicate_distance, params.near_duplicate_intensity, params.near_duplicate_likeness
    )
    columns = ["lookalike", "lookalike_split", "lookalike_bits", "lookalike_others", "likeness"]
    rows = [[*near] if (near := lookalikes.get(label)) else [None] * len(columns) for label in manifest.index]
    frame = pd.DataFrame(rows, manifest.index, columns)
    frame["lookalike_more"] = [f" and {int(n)} more" if n and n > 0 else "" for n in frame.pop("lookalike_others")]
    frame["lookalike_why"] = [
        "brightness agrees"
        if pd.isna(likeness)
        else f"small versions of them, at the best shift, correlate by {likeness:.2f}"
        for likeness in frame.pop("likeness")
    ]
    return frame


def _outliers(manifest: pd.DataFrame, crop: int) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame({"brightness_z": brightness_z(manifest), "softness": softness(manifest)})
    frame["size_ratio"] = size_ratio(manifest)
    means = {label: mean for label, mean in manifest["mean"].items() if isinstance(mean, np.ndarray)}
    middles = np.array([mean.mean() for mean in means.values()]) if means else np.zeros(1)
    frame["means"] = [", ".join(map(_number, means[label])) if label in means else "" for label in frame.index]
    frame["usual_mean"] = _number(np.median(middles))
    frame["least_mean"], frame["most_mean"] = _number(middles.min()), _number(middles.max())
    frame["least_low"] = _number(min((low.min() for low in manifest["low"].dropna()), default=math.nan))
    frame["most_high"] = _number(max((high.max() for high in manifest["high"].dropna()), default=math.nan))
    edges = manifest[["width", "height"]].astype(float).median()
    frame["usual_size"] = f"{edges['width']:.0f} x {edges['height']:.0f}"
    sizes = zip(*(manifest[c] for c in ("instance_areas", "height", "width", "depth")), strict=True)
    frame["object_share"] = [_object_share(crop, *row) for row in sizes]
    return frame


def _number(value: float) -> str:
    """Format a value of an image: 0.983, 208.3, 285,400."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _object_share(crop: int, areas: Any, height: Any, width: Any, depth: Any) -> float | None:
    """Return the edge of a square with the area of the median instance, as a share of a crop's; None for volumes and without instances."""
    import pandas as pd

    if not isinstance(areas, np.ndarray) or not len(areas) or pd.isna(height) or not pd.isna(depth):
        return None
    return math.sqrt(float(np.median(areas))) / min(int(height), int(width), crop)


def _foreground(class_pixels: Any, labelled: Any, table: ClassTable) -> tuple[float | None, str]:
    """Return the share of labelled pixels that are not background, and its name; without a background, of the largest class."""
    if not isinstance(class_pixels, np.ndarray):
        return None, ""
    main = 0 if is_background(table.names[0]) else int(class_pixels.argmax())
    return (1 - float(class_pixels[main]) / labelled if labelled else 0.0), table.names[main] if labelled else "ignored"


def class_frame(manifest: pd.DataFrame, table: ClassTable) -> pd.DataFrame:
    """Make the frame of classes, over the images that can be trained on."""
    import pandas as pd

    rows = manifest[usable(manifest)]
    frame = pd.DataFrame({"subject": table.names, "value": [spec.value for spec in table.classes]})
    train, pixels = (_sum_pixels(part, len(table)) for part in (rows[rows["split"] == "train"], rows))
    frame["pixels"] = pixels
    frame["unseen"] = np.where(train == 0, pixels, 0)
    labelled = int(labelled_pixels(rows[rows["split"] == "train"], table.overlapping).sum())
    frame["train_share"] = [t / labelled if t else None for t in train]
    binary = len(table) == 2 and is_background(table.names[0]) and pixels.sum() > 0
    frame["background_share"] = [pixels[0] / pixels.sum() if binary and i == 0 else None for i in range(len(table))]
    return frame.astype({"train_share": float, "background_share": float})


def presence_frame(manifest: pd.DataFrame, table: ClassTable) -> pd.DataFrame:
    """Make the frame of classes by split: one row for val and test, if they have images, and each class that train holds.

    The background is left out, and so are classes that train lacks, which another check reports.
    """
    import pandas as pd

    rows = manifest[usable(manifest)]
    counts = {split: _sum_pixels(rows[rows["split"] == split], len(table)) for split in SPLITS}
    filled = [split for split in SPLITS if (rows["split"] == split).any()]
    records = []
    for index, name in enumerate(table.names):
        holders = [split for split in filled if counts[split][index]]
        if is_background(name) or "train" not in holders:
            continue
        others = ", ".join(f"{counts[split][index]:,} pixels in {split}" for split in holders)
        records += [
            {
                "subject": f"{name} in {split}",
                "name": name,
                "split": split,
                "pixels": int(counts[split][index]),
                "others": others,
            }
            for split in filled
            if split != "train"
        ]
    columns = ["subject", "name", "split", "pixels", "others"]
    return pd.DataFrame(records, columns=columns).astype({"pixels": int})


def labels_frame(manifest: pd.DataFrame, table: ClassTable) -> pd.DataFrame:
    """Make the frame of all labels: one row if the table has a background, with the pixels of the other classes."""
    import pandas as pd

    columns = ["subject", "background", "foreground_pixels", "others"]
    rows = manifest[usable(manifest)]
    pixels = _sum_pixels(rows, len(table))
    if not is_background(table.names[0]) or not len(rows):
        return pd.DataFrame([], columns=columns).astype({"foreground_pixels": int})
    row = ["labels", table.names[0], int(pixels[1:].sum()), ", ".join(table.names[1:7])]
    return pd.DataFrame([row], columns=columns).astype({"foreground_pixels": int})


def _sum_pixels(rows: pd.DataFrame, n_classes: int) -> np.ndarray:
    return sum((np.asarray(pixels, np.int64) for pixels in rows["class_pixels"]), np.zeros(n_classes, np.int64))


_FEW_IMAGES, _MANY_IMAGES = 3, 20
"""A split with fewer images than the first number is reported, in data of few groups with at least as many images as the second."""


def split_frame(manifest: pd.DataFrame, min_images: int) -> pd.DataFrame:
    """Make the frame of splits. min_images: the smallest number of images of a split."""
    import pandas as pd

    rows = manifest[usable(manifest)]
    counts = rows["split"].value_counts()
    has_few_groups = bool(rows["group"].notna().all()) and rows["group"].nunique() < FEW_GROUPS
    frame = pd.DataFrame({"subject": SPLITS, "images": [int(counts.get(split, 0)) for split in SPLITS]})
    frame["least"], frame["total"] = min_images, int(frame["images"].sum())
    is_small = (frame["images"] < _FEW_IMAGES) & (frame["total"] >= _MANY_IMAGES) & (frame["images"] > 0)
    frame["few"] = (is_small & has_few_groups).astype(int)
    frame["enough"], frame["yes"] = frame["images"] >= min_images, True
    return frame


def group_frame(manifest: pd.DataFrame) -> pd.DataFrame:
    """Make the frame of groups."""
    import pandas as pd

    groups = manifest[manifest["group"].notna()].groupby("group")
    counts, all_given = groups["split"].nunique().astype(float), groups["split_given"].all().astype(bool)
    frame = pd.DataFrame({"subject": counts.index, "splits": ""}, counts.index)
    frame["given_splits"], frame["drawn_splits"] = counts.where(all_given), counts.where(~all_given)
    for group in counts.index[counts > 1]:
        present = set(groups.get_group(group)["split"])
        frame.at[group, "splits"] = " and ".join(split for split in SPLITS if split in present)
    return frame.reset_index(drop=True)


def drift_frame(drifts: Sequence[Drift]) -> pd.DataFrame:
    """Make the frame of quantities that may have drifted."""
    import pandas as pd

    columns = ["subject", "psi", "ks", "before", "now", "drifted"]
    rows = [(d.quantity, d.psi, d.ks, d.before, d.now, int(d.drifted)) for d in drifts]
    return pd.DataFrame(rows, columns=columns).astype({"drifted": int})
