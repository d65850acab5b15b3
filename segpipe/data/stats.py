"""A look at the data on one offline page: classes, splits, sizes, groups, some images with their labels drawn over them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import load_params
from segpipe.data.dataset import Dataset, load_dataset, load_sample
from segpipe.data.drawing import overlay, thumbnail
from segpipe.data.manifest import Fingerprint, build_manifest, make_fingerprint, read_manifest, usable
from segpipe.data.pages import photo_uri, render
from segpipe.data.splits import SPLITS
from segpipe.files import write_text

if TYPE_CHECKING:
    import pandas as pd

_LOOKS = 24
_EDGE = 380
_SIZES = 12


def write_stats_page(root: Path, out: Path) -> Path:
    """Write the page about `root/data` to `out`; returns `out`. Takes the manifest that `ingest` wrote, or else makes one.

    The images shown are drawn by hash, so that they change with the data alone.
    """
    params, dataset = load_params(root), load_dataset(root / "data")
    stored = root / "artifacts" / "manifest.parquet"
    manifest = read_manifest(stored) if stored.exists() else build_manifest(dataset, params.data, params.split)
    fingerprint = make_fingerprint(manifest, dataset.classes)
    rows = manifest[usable(manifest)]
    here = {item.key: item for item in dataset.items}
    drawn = rows[rows["key"].isin(here.keys())].sort_values("sha256").head(_LOOKS)
    looks = []
    for row in drawn.to_dict("records"):
        sample = load_sample(here[row["key"]], dataset.classes, params.data)
        assert sample.labels is not None
        picture = thumbnail(overlay(sample.image, sample.labels, dataset.classes.colors), _EDGE)
        looks.append({"uri": photo_uri(picture), "key": sample.key, "split": row["split"], "group": sample.group})
    page = render(
        Path(__file__).parent / "templates" / "stats.html",
        fingerprint=fingerprint,
        unusable=len(manifest) - len(rows),
        objects=int(rows["n_instances"].sum()) if fingerprint.instances else None,
        classes=_classes(rows, dataset, fingerprint),
        ignored=[
            fingerprint.ignored_pixels[s] / max(1, fingerprint.ignored_pixels[s] + sum(fingerprint.class_pixels[s]))
            for s in SPLITS
        ],
        splits=_splits(rows),
        sizes=_sizes(rows),
        groups=_groups(rows),
        looks=looks,
    )
    write_text(out, page)
    return out


def _classes(rows: pd.DataFrame, dataset: Dataset, fingerprint: Fingerprint) -> list[dict[str, Any]]:
    images = (np.stack(rows["class_pixels"].to_list()) > 0).sum(0)
    totals = {split: max(1, sum(fingerprint.class_pixels[split])) for split in SPLITS}
    return [
        {
            "name": spec.name, "value": spec.value, "color": spec.color, "images": int(images[index]),
            "shares": [fingerprint.class_pixels[split][index] / totals[split] for split in SPLITS],
        }
        for index, spec in enumerate(dataset.classes.classes)
    ]  # fmt: skip


def _splits(rows: pd.DataFrame) -> list[dict[str, Any]]:
    parts = [(split, rows[rows["split"] == split]) for split in SPLITS]
    return [
        {
            "name": split, "images": len(part), "share": len(part) / len(rows), "groups": part["group"].nunique(),
            "given": int(part["split_given"].sum()),
        }
        for split, part in parts
    ]  # fmt: skip


def _sizes(rows: pd.DataFrame) -> list[dict[str, Any]]:
    counts = Counter(
        f"{width} × {height}" for width, height in zip(rows["width"], rows["height"], strict=True)
    ).most_common()
    others = sum(n for _, n in counts[_SIZES:])
    shown = counts[:_SIZES] + ([(f"{len(counts) - _SIZES} other sizes", others)] if others else [])
    return [{"name": name, "images": n, "share": n / len(rows)} for name, n in shown]


def _groups(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"name": name, "images": len(part), "splits": ", ".join(s for s in SPLITS if (part["split"] == s).any())}
        for name, part in rows[rows["group"].notna()].groupby("group")
    ]
