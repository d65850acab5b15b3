"""Compute the numbers of the page from the manifest; no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from segpipe.data.manifest.fingerprint import intensity_statistics, make_fingerprint
from segpipe.data.manifest.table import labelled_pixels, usable
from segpipe.data.splits import SPLITS
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
from segpipe.validation.findings import Finding, FindingsFile

if TYPE_CHECKING:
    import pandas as pd

_MAX_EXAMPLES = 5
"""Findings of one check that are listed."""
_MAX_UNUSABLE = 20
"""Unusable files that are listed."""
_MAX_SERIES = 6
"""Series of a histogram."""
_MAX_WINDOWS = 120
"""Intensity windows of a chart."""


def compute_stats(manifest: pd.DataFrame, classes: ClassTable) -> DataStats:
    """Compute the numbers about a dataset, without the problems.

    Args:
        manifest: The manifest, as `build_manifest` returns it.
        classes: The classes of the dataset.
    """
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
        objects=_instances(rows),
        regions=histogram({"all": _numbers(rows, "smallest_component")}, whole=True),
        groups=_groups(rows),
        spacing=_spacing(rows),
        conversions=_conversions(rows),
    )


def read_problems(path: Path) -> list[Problem]:
    """Read the findings of validation from findings.json and group them by check.

    Raises:
        DataError: The file does not hold findings.
    """
    return group_findings(FindingsFile.read(path).findings)


def group_findings(findings: Iterable[Finding]) -> list[Problem]:
    """Group findings by check: errors first, then warnings, then notes."""
    severities = get_args(Severity)
    groups: dict[tuple[Severity, str], list[Example]] = {}
    for finding in findings:
        example = Example(file=finding.file, found=finding.found, expected=finding.expected, fix=finding.fix)
        groups.setdefault((finding.severity, finding.expectation), []).append(example)
    return [
        Problem(check=check, severity=severity, count=len(examples), examples=examples[:_MAX_EXAMPLES])
        for (severity, check), examples in sorted(groups.items(), key=lambda group: severities.index(group[0][0]))
    ]


def has_value(cell: Any) -> bool:
    """Return whether a cell of the manifest holds a value: not None, NaN or NA."""
    import pandas as pd

    return cell is not None and (np.ndim(cell) > 0 or not bool(pd.isna(cell)))


def _column(rows: pd.DataFrame, name: str) -> list[Any]:
    """Return a column as Python values, with None for empty cells."""
    return [value if has_value(value) else None for value in rows[name]]


def _numbers(rows: pd.DataFrame, name: str) -> list[float]:
    """Return the values of a column of numbers, without empty cells."""
    return [float(value) for value in _column(rows, name) if value is not None]


def _tally(values: Iterable[Any]) -> dict[Any, int]:
    """Count how often each value occurs, the most frequent first."""
    counts = Counter(values)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0]))))


def _by_split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {split: rows[rows["split"] == split] for split in SPLITS}


def _by_series(rows: pd.DataFrame, name: str) -> dict[str, list[float]]:
    """Return the values of a column by series.

    Series are groups if a few of them hold most images (all further groups together are "others"), else splits.
    """
    row_groups = _column(rows, "group")
    sizes = _tally(group for group in row_groups if group is not None)
    largest = list(sizes)[: _MAX_SERIES if len(sizes) <= _MAX_SERIES else _MAX_SERIES - 1]
    if len(sizes) < 2 or 2 * sum(sizes[group] for group in largest) < len(rows):
        return {split: values for split, part in _by_split(rows).items() if (values := _numbers(part, name))}
    labels = [group if group in largest else "others" for group in row_groups]
    names = [*largest, *(["others"] if "others" in labels else [])]
    return {label: values for label in names if (values := _numbers(rows[[row == label for row in labels]], name))}


def _unusable(rows: pd.DataFrame) -> list[Unusable]:
    def reason(row: dict[str, Any]) -> str:
        if isinstance(row["error"], str):
            return row["error"]
        return "image and mask have different sizes" if isinstance(row["mask_path"], str) else "no mask"

    records: list[dict[str, Any]] = rows.head(_MAX_UNUSABLE).to_dict("records")  # type: ignore[assignment]
    return [Unusable(file=str(row["path"]), why=reason(row)) for row in records]


def _classes(rows: pd.DataFrame, classes: ClassTable) -> list[ClassBalance]:
    counts, totals = {}, {}
    for split, part in _by_split(rows).items():
        counts[split] = np.array([*part["class_pixels"]], np.int64).reshape(len(part), len(classes))
        totals[split] = max(1, int(labelled_pixels(part, classes.overlapping).sum()))
    return [
        ClassBalance(
            name=spec.name,
            value=spec.value,
            color=spec.color,
            images={split: int((pixels[:, index] > 0).sum()) for split, pixels in counts.items()},
            pixels={split: int(pixels[:, index].sum()) for split, pixels in counts.items()},
            share={split: float(pixels[:, index].sum() / totals[split]) for split, pixels in counts.items()},
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
    """Return the intensities of each channel of the images with the most frequent number of channels."""
    if not len(rows):
        return []
    count = int(rows["channels"].mode().iloc[0])
    alike = rows[rows["channels"] == count]
    mean, std, _, _ = intensity_statistics(alike)
    names = ("red", "green", "blue") if count == 3 else tuple(f"channel {c + 1}" for c in range(count))
    channels = []
    for c, name in enumerate(names):
        columns = ([float(values[c]) for values in alike[column]] for column in ("mean", "low", "high"))
        windows = sorted(zip(*columns, strict=True))
        picked = sorted({round(i) for i in np.linspace(0, len(windows) - 1, _MAX_WINDOWS)})
        means = histogram(
            _by_series(alike.assign(channel_mean=[values[c] for values in alike["mean"]]), "channel_mean")
        )
        assert means is not None, "there are rows"
        spread = [(low, middle, high) for middle, low, high in (windows[i] for i in picked)]
        channels.append(Channel(name=name, mean=mean[c], std=std[c], means=means, windows=spread))
    return channels


def _instances(rows: pd.DataFrame) -> InstanceStats | None:
    counts = _numbers(rows, "n_instances")
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
    counts = _tally((tuple(round(float(edge), 4) for edge in mm), axes) for mm, axes in pairs if mm is not None)
    return [Spacing(mm=list(mm), orientation=axes, images=n) for (mm, axes), n in counts.items()]


def _conversions(rows: pd.DataFrame) -> list[Conversion]:
    """Return the notes of the manifest on how files were converted, the most frequent first."""
    keys_by_note: dict[str, list[str]] = {}
    for key, notes in zip(rows["key"], _column(rows, "notes"), strict=True):
        for note in notes if notes is not None else []:
            keys_by_note.setdefault(note, []).append(key)
    conversions = [Conversion(note=note, images=len(keys), example=keys[0]) for note, keys in keys_by_note.items()]
    return sorted(conversions, key=lambda conversion: (-conversion.images, conversion.note))
