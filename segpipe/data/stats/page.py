"""The page itself: numbers, charts and pictures in one offline file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import Params, load_params
from segpipe.data.dataset import Dataset, load_dataset
from segpipe.data.manifest import build_manifest, read_manifest, usable
from segpipe.data.pages import render
from segpipe.data.stats.charts import Bars, bars, ribbon, scatter, share_axis
from segpipe.data.stats.histograms import Histogram, histogram
from segpipe.data.stats.looks import problem_pictures, take_looks
from segpipe.data.stats.measure import measure
from segpipe.data.stats.numbers import DataStats
from segpipe.files import write_text

if TYPE_CHECKING:
    import pandas as pd

_GROUPS = 40
_CHANNELS = 8


def read_stats(root: Path) -> DataStats:
    """The numbers about `root/data`. Takes the manifest that `ingest` wrote, or else makes one."""
    _, dataset, manifest = _load(root)
    return measure(manifest, dataset.classes, root / "reports" / "validation" / "findings.json")


def write_stats_page(root: Path, out: Path) -> Path:
    """Write the page about `root/data` to `out`; returns `out`. The same data give the same bytes."""
    params, dataset, manifest = _load(root)
    stats = measure(manifest, dataset.classes, root / "reports" / "validation" / "findings.json")
    looks = take_looks(manifest[usable(manifest)], dataset, params.data)
    pictures = problem_pictures(stats.problems or [], dataset, params.data)
    template = Path(__file__).with_name("stats.html")
    write_text(out, render(template, looks=looks, pictures=pictures, **_context(stats)))
    return out


def _load(root: Path) -> tuple[Params, Dataset, pd.DataFrame]:
    params, dataset = load_params(root), load_dataset(root / "data")
    stored = root / "artifacts" / "manifest.parquet"
    manifest = read_manifest(stored) if stored.exists() else build_manifest(dataset, params.data, params.split)
    return params, dataset, manifest


def _context(stats: DataStats) -> dict[str, Any]:
    """What the template shows beside the pictures."""
    depths = [size.depth for size in stats.sizes if size.depth is not None]
    slices = histogram({"all": [d for s in stats.sizes if s.depth for d in [s.depth] * s.images]}, whole=True)
    labelled = sum(sum(row.pixels.values()) for row in stats.classes)
    ignored = sum(stats.ignored.values())
    return {
        "s": stats, "volumes": len(depths) > 0, "depths": depths, "depth": slices and (bars(slices), slices),
        "ignored": ignored / max(1, labelled + ignored), "given": sum(split.given for split in stats.splits),
        "shares": share_axis(stats.classes), "sizes": scatter(stats.sizes) if stats.sizes else None,
        "means": [bars(channel.means) for channel in stats.intensity],
        "ribbons": [ribbon(channel.windows) for channel in stats.intensity],
        "sharpness": _bars(stats.sharpness), "regions": _bars(stats.regions),
        "objects": stats.objects and {"areas": _bars(stats.objects.areas), "per_image": bars(stats.objects.per_image)},
        "most_groups": _GROUPS, "most_channels": _CHANNELS,
    }  # fmt: skip


def _bars(found: Histogram | None) -> Bars | None:
    return bars(found) if found else None
