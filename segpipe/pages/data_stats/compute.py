"""From the manifest to the numbers of the page; no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from segpipe.data.manifest.fingerprint import intensity_statistics, make_fingerprint
from segpipe.data.manifest.table import labelled_pixels, usable
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_json
from segpipe.pages.data_stats.histograms import histogram
from segpipe.pages.data_stats.schema import (
    Channel,
    ClassBalance,
    Conversion,
    DataStats,
    Example,
    GroupSize,
    InstanceStats,
    Problem,
    Severity,
    Size,
    Spacing,
    SplitSize,
    Unusable,
)
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = 5
_UNUSABLE = 20
_SERIES = 6
_WINDOWS = 120


def compute_stats(manifest: pd.DataFrame, classes: ClassTable) -> DataStats:
    """The numbers about a dataset, from its manifest; problems are not among them yet."""
    rows = manifest[usable(manifest)]
    return DataStats(
        data_hash=make_fingerprint(manifest, classes).data_hash if len(rows) else None,
        images=len(manifest),
        usable=len(rows),
        unusable=_unusable(manifest[~usable(manifest)]),
        problems=None,
        dtypes=_tally(rows["dtype"]),
        channel_counts=_tally(rows["channels"]),
        classes=_classes(rows, classes),
        ignored={split: int(part["ignored_pixels"].sum()) for split, part in _by_split(rows).items()},
        splits=_splits(rows),
        sizes=_sizes(rows),
        intensity=_channels(rows),
        sharpness=histogram(_by_series(rows, "sharpness")),
        objects=_objects(rows),
        regions=histogram({"all": _known(rows, "smallest_component")}, whole=True),
        groups=_groups(rows),
        spacing=_spacing(rows),
        conversions=_conversions(rows),
    )


def read_problems(path: Path) -> list[Problem]:
    """`sum_up` of what stands in validation's findings.json; DataError for a file that is none."""
    try:
        return group_findings(read_json(path)["findings"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "is no list of findings", where=path, found=error, fix="segpipe validate writes it anew"
        ) from error


def group_findings(findings: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Findings by check: errors first, then warnings, then notes."""
    order = get_args(Severity)
    found: dict[tuple[Severity, str], list[Example]] = {}
    for finding in findings:
        example = Example(**{name: finding[name] for name in Example.model_fields})
        found.setdefault((finding["severity"], finding["expectation"]), []).append(example)
    return [
        Problem(check=check, severity=severity, count=len(all_of_it), examples=all_of_it[:_EXAMPLES])
        for (severity, check), all_of_it in sorted(found.items(), key=lambda pair: order.index(pair[0][0]))
    ]


def has_value(value: Any) -> bool:
    """Whether a cell of a manifest holds anything: neither None nor NaN nor NA."""
    import pandas as pd

    return value is not None and (np.ndim(value) > 0 or not bool(pd.isna(value)))


def _column(rows: pd.DataFrame, name: str) -> list[Any]:
    """A column as Python values, None where a cell is empty."""
    return [value if has_value(value) else None for value in rows[name]]


def _known(rows: pd.DataFrame, name: str) -> list[float]:
    return [float(value) for value in _column(rows, name) if value is not None]


def _tally(values: Iterable[Any]) -> dict[Any, int]:
    """How often each value occurs, the most frequent first."""
    counted = Counter(values)
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], str(pair[0]))))


def _by_split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: rows[rows["split"] == split] for split in SPLITS}


def _by_series(rows: pd.DataFrame, name: str) -> dict[str, list[float]]:
    """A column of numbers by group, where a few groups hold most images (the others together as "others"), or else by split."""
    own = _column(rows, "group")
    groups = _tally(group for group in own if group is not None)
    kept = list(groups)[: _SERIES if len(groups) <= _SERIES else _SERIES - 1]
    if len(groups) < 2 or 2 * sum(groups[group] for group in kept) < len(rows):
        return {split: found for split, part in _by_split(rows).items() if (found := _known(part, name))}
    names = [group if group in kept else "others" for group in own]
    series = [*kept, *(["others"] if "others" in names else [])]
    return {part: found for part in series if (found := _known(rows[[n == part for n in names]], name))}


def _unusable(rows: pd.DataFrame) -> list[Unusable]:
    def why(row: dict[str, Any]) -> str:
        if isinstance(row["error"], str):
            return row["error"]
        return "image and mask differ in size" if isinstance(row["mask_path"], str) else "no mask"

    return [Unusable(file=str(row["path"]), why=why(row)) for row in rows.head(_UNUSABLE).to_dict("records")]  # type: ignore[arg-type]


def _classes(rows: pd.DataFrame, classes: ClassTable) -> list[ClassBalance]:
    counts = {
        split: np.array([*part["class_pixels"]], np.int64).reshape(len(part), len(classes))
        for split, part in _by_split(rows).items()
    }
    totals = {
        split: max(1, int(labelled_pixels(part, classes.overlapping).sum())) for split, part in _by_split(rows).items()
    }
    return [
        ClassBalance(
            name=spec.name,
            value=spec.value,
            color=spec.color,
            images={split: int((part[:, index] > 0).sum()) for split, part in counts.items()},
            pixels={split: int(part[:, index].sum()) for split, part in counts.items()},
            share={split: float(part[:, index].sum() / totals[split]) for split, part in counts.items()},
        )
        for index, spec in enumerate(classes.classes)
    ]


def _splits(rows: pd.DataFrame) -> list[SplitSize]:
    return [
        SplitSize(
            name=split,
            images=len(part),
            share=len(part) / max(1, len(rows)),
            groups=part["group"].nunique(),
            given=int(part["split_given"].sum()),
        )
        for split, part in _by_split(rows).items()
    ]


def _sizes(rows: pd.DataFrame) -> list[Size]:
    counts = Counter(zip(_column(rows, "width"), _column(rows, "height"), _column(rows, "depth"), strict=True))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], [v or 0 for v in pair[0]]))
    return [Size(width=w, height=h, depth=d, images=n) for (w, h, d), n in ordered]


def _channels(rows: pd.DataFrame) -> list[Channel]:
    """Of the images with the usual number of channels: means of another number cannot be compared."""
    if not len(rows):
        return []
    count = int(rows["channels"].mode().iloc[0])
    alike = rows[rows["channels"] == count]
    mean, std, _, _ = intensity_statistics(alike)
    names = ("red", "green", "blue") if count == 3 else tuple(f"channel {c + 1}" for c in range(count))
    made = []
    for c, name in enumerate(names):
        own = alike.assign(own_mean=[values[c] for values in alike["mean"]])
        windows = sorted(
            zip(*([float(v[c]) for v in alike[column]] for column in ("mean", "low", "high")), strict=True)
        )
        picked = sorted({round(i) for i in np.linspace(0, len(windows) - 1, _WINDOWS)})
        means = histogram(_by_series(own, "own_mean"))
        assert means is not None, "there are rows"
        spread = [(low, middle, high) for middle, low, high in (windows[i] for i in picked)]
        made.append(Channel(name=name, mean=mean[c], std=std[c], means=means, windows=spread))
    return made


def _objects(rows: pd.DataFrame) -> InstanceStats | None:
    counts = _known(rows, "n_instances")
    if not counts:
        return None
    areas = [int(area) for areas in _column(rows, "instance_areas") if areas is not None for area in areas]
    per_image = histogram({"all": counts}, whole=True)
    assert per_image is not None, "there are counts"
    return InstanceStats(
        count=int(sum(counts)),
        areas=histogram({"all": areas}, whole=True),
        per_image=per_image,
        smallest=min(areas, default=None),
        median=float(np.median(areas)) if areas else None,
    )


def _groups(rows: pd.DataFrame) -> list[GroupSize]:
    parts = [
        GroupSize(
            name=str(name), images=len(part), splits={split: int((part["split"] == split).sum()) for split in SPLITS}
        )
        for name, part in rows[rows["group"].notna()].groupby("group")
    ]
    return sorted(parts, key=lambda group: (-group.images, group.name))


def _spacing(rows: pd.DataFrame) -> list[Spacing]:
    pairs = zip(_column(rows, "spacing"), _column(rows, "orientation"), strict=True)
    counts = _tally((tuple(round(float(s), 4) for s in mm), axes) for mm, axes in pairs if mm is not None)
    return [Spacing(mm=list(mm), orientation=axes, images=n) for (mm, axes), n in counts.items()]


def _conversions(rows: pd.DataFrame) -> list[Conversion]:
    """The manifest's notes: what was converted on the way in."""
    found: dict[str, list[str]] = {}
    for key, notes in zip(rows["key"], _column(rows, "notes"), strict=True):
        for note in notes if notes is not None else []:
            found.setdefault(note, []).append(key)
    made = [Conversion(note=note, images=len(keys), example=keys[0]) for note, keys in found.items()]
    return sorted(made, key=lambda conversion: (-conversion.images, conversion.note))
