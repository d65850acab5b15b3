"""The manifest as plain numbers and words: a frame with a row an image, and one each about classes, splits and groups.

Every frame has a column `subject` that names its row. An empty cell means that the question does not arise.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segpipe.data.classes import is_background
from segpipe.data.manifest import Fingerprint, usable
from segpipe.data.splits import SPLITS
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

About = Literal["image", "class", "split", "group"]


def make_frames(manifest: pd.DataFrame, fingerprint: Fingerprint, min_images: int) -> dict[About, pd.DataFrame]:
    """All frames, by what they are about."""
    return {
        "image": _images(manifest, fingerprint),
        "class": _classes(fingerprint),
        "split": _splits(manifest, min_images),
        "group": _groups(manifest),
    }


def _images(manifest: pd.DataFrame, fingerprint: Fingerprint) -> pd.DataFrame:
    import pandas as pd

    table = fingerprint.classes
    good = manifest["error"].isna()
    frame = pd.DataFrame({"subject": manifest["path"], "key": manifest["key"], "split": manifest["split"]})
    frame["error"] = manifest["error"]
    frame["trouble"], frame["remedy"] = _split_errors(manifest)
    frame["without_mask"] = manifest["key"].where(good & manifest["mask_path"].isna())
    frame["image_size"] = _sizes(manifest["width"], manifest["height"])
    frame["mask_size"] = _sizes(manifest["mask_width"], manifest["mask_height"])
    unknown = [json.loads(text) if isinstance(text, str) else {} for text in manifest["unknown_values"]]
    strange = {int(value) for values in unknown for value in values}
    frame["unknown_pixels"] = [int(sum(values.values())) for values in unknown]
    frame["unknown_text"] = [_list_unknown(values) for values in unknown]
    frame["unknown_fix"] = [_unknown_fix(values, strange, table) for values in unknown]
    frame["known_text"] = ", ".join(f"{spec.value} ({spec.name})" for spec in table.classes[:12])
    frame["channels"], frame["usual_channels"] = manifest["channels"], fingerprint.channels
    frame["dtype"], frame["usual_dtype"] = manifest["dtype"], fingerprint.dtype
    frame["contrast"] = [float(stds.max()) if isinstance(stds, np.ndarray) else None for stds in manifest["std"]]
    shares = [_foreground(pixels, table) for pixels in manifest["class_pixels"]]
    frame["foreground"], frame["main_class"] = [share for share, _ in shares], [name for _, name in shares]
    return frame.join(_copies(manifest))


def _split_errors(manifest: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What is wrong and what to do, out of the one line of each error; the file is named beside it anyway."""
    troubles, remedies = [], []
    for path, error in zip(manifest["path"], manifest["error"], strict=True):
        trouble, _, remedy = (error if isinstance(error, str) else "").removeprefix(f"{path}: ").partition(". Fix: ")
        troubles.append(trouble)
        remedies.append(remedy or "restore the file, or take it out of the data")
    return troubles, remedies


def _sizes(width: pd.Series, height: pd.Series) -> list[str | None]:
    import pandas as pd

    return [None if pd.isna(w) else f"{w} x {h}" for w, h in zip(width, height, strict=True)]


def _copies(manifest: pd.DataFrame) -> pd.DataFrame:
    """What other rows show the very same image; empty where none does."""
    import pandas as pd

    columns = ["copies", "copy_splits", "mask_versions", "copies_beside"]
    rows: dict[Any, list[Any]] = {place: ["", 1, 1, 0] for place in manifest.index}
    same = manifest[manifest["sha256"].notna() & manifest["sha256"].duplicated(keep=False)]
    for _, twins in same.groupby("sha256"):
        for place, row in twins.iterrows():
            others = twins.drop(index=place)
            beside = (others["split"] == row["split"]) & (others["mask_sha256"] == row["mask_sha256"])
            named = ", ".join(others["path"].iloc[:3]) + (" and more" if len(others) > 3 else "")
            rows[place] = [named, twins["split"].nunique(), twins["mask_sha256"].nunique(), int(beside.sum())]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _list_unknown(values: dict[str, int]) -> str:
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{value} ({count} pixel{'s' if count > 1 else ''})" for value, count in ordered[:6])
    return f"unknown value{'s' if len(ordered) > 1 else ''} {shown}" + (
        f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
    )


def _unknown_fix(values: dict[str, int], strange: set[int], table: ClassTable) -> str:
    """What unknown values tell by experience. `strange`: all unknown values of the dataset."""
    n_classes, found = len(table), {int(value) for value in values}
    known = sorted(spec.value for spec in table.classes)
    if known == list(range(n_classes)) and strange == {n_classes}:
        return (
            f"masks seem to count classes from 1: set value 1 to {n_classes} in dataset.yaml; or {n_classes} means ignored: "
            f"`ignore: [{n_classes}]`"
        )
    if strange == {255}:
        return (
            "255 often means ignored: `ignore: [255]` in dataset.yaml; if it is a class, give it as that class's value"
        )
    if len(found) > max(8, 2 * n_classes):
        return "masks seem to have been smoothed, resized or saved as JPEG: export them as PNG, without interpolation"
    return f"paint over these pixels, or list the value in dataset.yaml (`ignore: [{min(found, default=0)}]`, or as a class)"


def _foreground(class_pixels: Any, table: ClassTable) -> tuple[float | None, str]:
    """The share of labelled pixels that are not background (where there is none: not of the largest class)."""
    if not isinstance(class_pixels, np.ndarray):
        return None, ""
    main = 0 if is_background(table.names[0]) else int(class_pixels.argmax())
    labelled = int(class_pixels.sum())
    return (1 - float(class_pixels[main]) / labelled if labelled else 0.0), table.names[main] if labelled else "ignored"


def _classes(fingerprint: Fingerprint) -> pd.DataFrame:
    import pandas as pd

    table = fingerprint.classes
    frame = pd.DataFrame({"subject": table.names, "value": [spec.value for spec in table.classes]})
    train, pixels = fingerprint.class_pixels["train"], np.sum([fingerprint.class_pixels[s] for s in SPLITS], axis=0)
    frame["pixels"] = pixels
    frame["unseen"] = [int(n) if t == 0 and n > 0 else 0 for t, n in zip(train, pixels, strict=True)]
    frame["train_share"] = [t / sum(train) if t else None for t in train]
    binary = len(table) == 2 and is_background(table.names[0])
    frame["background_share"] = [pixels[0] / pixels.sum() if binary and i == 0 else None for i in range(len(table))]
    return frame.astype({"train_share": float, "background_share": float})


def _splits(manifest: pd.DataFrame, min_images: int) -> pd.DataFrame:
    import pandas as pd

    counts = manifest.loc[usable(manifest), "split"].value_counts()
    frame = pd.DataFrame({"subject": SPLITS, "images": [int(counts.get(split, 0)) for split in SPLITS]})
    frame["least"] = min_images
    frame["enough"], frame["yes"] = frame["images"] >= min_images, True
    return frame


def _groups(manifest: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for group, members in manifest[manifest["group"].notna()].groupby("group"):
        splits = [split for split in SPLITS if (members["split"] == split).any()]
        given = bool(members["split_given"].all())
        rows.append({
            "subject": group, "splits": " and ".join(splits),
            "given_splits": len(splits) if given else None, "drawn_splits": None if given else len(splits),
        })  # fmt: skip
    frame = pd.DataFrame(rows, columns=["subject", "splits", "given_splits", "drawn_splits"])
    return frame.astype({"given_splits": float, "drawn_splits": float})
