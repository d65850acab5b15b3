"""The page itself: numbers, charts and pictures in one offline file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import load_params
from segpipe.data.dataset import Dataset, load_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.manifest.table import usable
from segpipe.files import write_text
from segpipe.pages.data_stats.charts import HistogramChart, histogram_chart, ribbon_chart, scatter_chart, share_axis
from segpipe.pages.data_stats.compute import compute_stats, group_findings, read_problems
from segpipe.pages.data_stats.histograms import Histogram, histogram
from segpipe.pages.data_stats.pictures import draw_examples, problem_pictures
from segpipe.pages.data_stats.schema import DataStats
from segpipe.pages.environment import render
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

_GROUPS = 40
_CHANNELS = 8


Judge = Callable[["pd.DataFrame", ClassTable], "Sequence[Mapping[str, Any]] | None"]
"""Says what is wrong with the images of a manifest: findings as those of findings.json; None where it cannot."""


def read_stats(root: Path, judge: Judge | None = None) -> DataStats:
    """The numbers about `root/data` as it is now. What `ingest` read is remembered, only what is new is decoded.

    Problems are those of findings.json, or, where that is about other data, those that `judge` finds.
    """
    return _look(root, judge)[2]


def write_stats_page(root: Path, out: Path, judge: Judge | None = None) -> Path:
    """Write the page about `root/data`, as of `read_stats`, to `out`; returns `out`. The same data give the same bytes."""
    dataset, manifest, stats = _look(root, judge)
    limits = load_params(root).data
    looks = draw_examples(manifest[usable(manifest)], dataset, limits)
    pictures = problem_pictures(stats.problems or [], dataset, limits)
    template = Path(__file__).with_name("stats.html")
    write_text(out, render(template, looks=looks, pictures=pictures, **_context(stats)))
    return out


def _look(root: Path, judge: Judge | None) -> tuple[Dataset, pd.DataFrame, DataStats]:
    params, dataset = load_params(root), load_dataset(root / "data")
    manifest = build_manifest(dataset, params.data, params.split, cache=root / ".segpipe" / "ingest")
    stats = compute_stats(manifest, dataset.classes)
    findings = root / "reports" / "validation" / "findings.json"
    if findings.exists() and (judge is None or _is_about(root / "artifacts" / "fingerprint.json", stats)):
        return dataset, manifest, stats.model_copy(update={"problems": read_problems(findings)})
    told = judge(manifest, dataset.classes) if judge else None
    return dataset, manifest, stats.model_copy(update={"problems": None if told is None else group_findings(told)})


def _is_about(fingerprint: Path, stats: DataStats) -> bool:
    """Whether what validation last looked at, by its fingerprint, are these data."""
    return fingerprint.exists() and Fingerprint.read(fingerprint).data_hash == stats.data_hash


def _context(stats: DataStats) -> dict[str, Any]:
    """What the template shows beside the pictures."""
    depths = [size.depth for size in stats.sizes if size.depth is not None]
    slices = histogram({"all": [d for s in stats.sizes if s.depth for d in [s.depth] * s.images]}, whole=True)
    labelled = sum(sum(row.pixels.values()) for row in stats.classes)
    ignored = sum(stats.ignored.values())
    return {
        "s": stats,
        "volumes": len(depths) > 0,
        "depths": depths,
        "depth": slices and (histogram_chart(slices), slices),
        "ignored": ignored / max(1, labelled + ignored),
        "given": sum(split.given for split in stats.splits),
        "shares": share_axis(stats.classes),
        "sizes": scatter_chart(stats.sizes) if stats.sizes else None,
        "means": [histogram_chart(channel.means) for channel in stats.intensity],
        "ribbons": [ribbon_chart(channel.windows) for channel in stats.intensity],
        "sharpness": _bars(stats.sharpness),
        "regions": _bars(stats.regions),
        "objects": stats.objects
        and {"areas": _bars(stats.objects.areas), "per_image": histogram_chart(stats.objects.per_image)},
        "most_groups": _GROUPS,
        "most_channels": _CHANNELS,
    }


def _bars(found: Histogram | None) -> HistogramChart | None:
    return histogram_chart(found) if found else None
