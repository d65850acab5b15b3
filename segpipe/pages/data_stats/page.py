"""The page of `segpipe data stats`: numbers, charts and pictures of a dataset in one offline file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import load_params
from segpipe.data.dataset import Dataset, load_dataset
from segpipe.data.few_groups import has_few_groups
from segpipe.data.imports.report import read_unused
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.manifest.table import usable
from segpipe.files import write_text
from segpipe.pages.data_stats.charts import (
    HistogramChart,
    histogram_chart,
    ribbon_chart,
    scatter_chart,
    share_axis,
)
from segpipe.pages.data_stats.compute import compute_stats, group_findings, read_problems
from segpipe.pages.data_stats.histograms import Histogram, histogram
from segpipe.pages.data_stats.pictures import draw_examples, problem_pictures
from segpipe.pages.data_stats.schema import DataStats, Problem
from segpipe.pages.environment import render
from segpipe.samples import ClassTable
from segpipe.validation.findings import Finding
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    import pandas as pd

_MAX_GROUPS = 40
"""Groups that the page lists."""
_MAX_CHANNELS = 8
"""Channels that get charts; the others only appear in a table."""


Judge = Callable[["pd.DataFrame", ClassTable], "Sequence[Finding] | None"]
"""Finds problems in a manifest: returns findings, or None if it cannot judge."""


def read_stats(root: Path, judge: Judge | None = None) -> DataStats:
    """Compute the numbers about the current content of `root/data`.

    Images that `ingest` has read before are not decoded again.

    Args:
        root: The workspace.
        judge: Finds the problems if findings.json is missing or is about other data.
    """
    return _read(root, judge)[2]


def write_stats_page(root: Path, out: Path, judge: Judge | None = None) -> Path:
    """Write the page about the current content of `root/data`. The same data give the same bytes.

    Args:
        root: The workspace.
        out: Where the page is written.
        judge: As for `read_stats`.

    Returns:
        `out`.
    """
    dataset, manifest, stats = _read(root, judge)
    limits = load_params(root).data
    examples = draw_examples(manifest[usable(manifest)], dataset, limits)
    pictures = problem_pictures(stats.problems or [], dataset, limits)
    rule = split_rule(manifest, load_params(root).split.method)
    context = _context(stats) | {"split_rule": rule}
    write_text(out, render("data_stats.html.j2", examples=examples, pictures=pictures, **context))
    return out


def split_rule(manifest: pd.DataFrame, method: str) -> str:
    """Describe how the images whose split is not set in samples.csv are assigned, to complete "The splits are ...".

    Args:
        manifest: The manifest, as `build_manifest` returns it.
        method: The value of `split.method`.
    """
    if method == "ranges":
        return "contiguous blocks: the last images of each group are test, those before them val"
    groups = manifest.loc[~manifest["split_given"].astype(bool), "group"].fillna("")
    if has_few_groups([{"group": group, "split": None} for group in groups]):
        return (
            "balanced: because there are few groups, val and test come as close to their shares as whole groups allow"
        )
    if method == "stratified":
        return "drawn by hash from strata, so that val and test also get images with rare classes"
    by_group = "the name of the group, or the content of an image without one,"
    unit = by_group if groups.astype(bool).any() else "the content of each image,"
    return f"derived from a hash of {unit} so that new images do not move the present ones"


def _read(root: Path, judge: Judge | None) -> tuple[Dataset, pd.DataFrame, DataStats]:
    paths = Paths(root)
    params, dataset = load_params(root), load_dataset(paths.data)
    manifest = build_manifest(dataset, params.data, params.split, cache=paths.cache)
    stats = compute_stats(manifest, dataset.classes)
    path = paths.findings
    if path.exists() and (judge is None or _describes(paths.fingerprint, stats)):
        problems: list[Problem] | None = read_problems(path)
    else:
        findings = judge(manifest, dataset.classes) if judge else None
        problems = None if findings is None else group_findings(findings)
    return dataset, manifest, stats.model_copy(update={"problems": problems, "unused": read_unused(paths.data)})


def _describes(fingerprint: Path, stats: DataStats) -> bool:
    """Return whether these data are the ones that were last validated, according to their fingerprint."""
    return fingerprint.exists() and Fingerprint.read(fingerprint).data_hash == stats.data_hash


def _context(stats: DataStats) -> dict[str, Any]:
    """Collect what the template shows in addition to the pictures."""
    depths = [size.depth for size in stats.sizes if size.depth is not None]
    slices = histogram({"all": [d for s in stats.sizes if s.depth for d in [s.depth] * s.images]}, whole=True)
    labelled = sum(sum(row.pixels.values()) for row in stats.classes)
    ignored = sum(stats.ignored.values())
    instances = stats.objects
    return {
        "stats": stats,
        "volumes": bool(depths),
        "depths": depths,
        "slices": slices,
        "slices_chart": _chart(slices),
        "ignored": ignored / max(1, labelled + ignored),
        "given": sum(split.given for split in stats.splits),
        "shares": share_axis(stats.classes),
        "sizes": scatter_chart(stats.sizes) if stats.sizes else None,
        "means": [histogram_chart(channel.means) for channel in stats.intensity],
        "ribbons": [ribbon_chart(channel.windows) for channel in stats.intensity],
        "sharpness": _chart(stats.sharpness),
        "regions": _chart(stats.regions),
        "areas": _chart(instances.areas) if instances else None,
        "per_image": histogram_chart(instances.per_image) if instances else None,
        "max_groups": _MAX_GROUPS,
        "max_channels": _MAX_CHANNELS,
    }


def _chart(values: Histogram | None) -> HistogramChart | None:
    return histogram_chart(values) if values else None
