"""The page of `segpipe compare`: two models next to each other, built from the same parts as the report."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import EvaluateParams
from segpipe.errors import MissingError, SegpipeError
from segpipe.evaluation.gallery.pictures import has_background, legend
from segpipe.files import write_text
from segpipe.gates.verdict_building import none_if_nan
from segpipe.pages.comparison.result import ComparisonResult, verdict_sentence
from segpipe.pages.comparison.sides import ComparisonSide, SharedImages
from segpipe.pages.components.axes import Axis, axis
from segpipe.pages.components.confusion import MAX_MATRIX_CLASSES, ConfusionLabels, ConfusionMatrix
from segpipe.pages.components.curves import curve_charts
from segpipe.pages.components.disagreement import ScoredModel, disagreement_legend, draw_disagreements
from segpipe.pages.components.forest import AXIS_END, AXIS_START
from segpipe.pages.components.gallery import GalleryImage, embed_images, layer_names, tile_ratio
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.environment import render
from segpipe.pages.report_inputs import calibration_view, further_scores
from segpipe.samples import ClassTable
from segpipe.workspace.changes import compare_states

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter

_GALLERY_TITLES = {"behind": "{after} is furthest behind {before}", "ahead": "{after} is furthest ahead of {before}"}


def write_comparison(
    root: Path,
    before: ComparisonSide,
    after: ComparisonSide,
    common: SharedImages,
    result: ComparisonResult,
    params: EvaluateParams,
    out: Path,
) -> None:
    """Write the page about two models.

    Its pictures need both models and the test images, from the workspace or from DVC's cache; if one of them is missing, the page
    says so.

    Args:
        root: The workspace.
        before: The first side.
        after: The second side.
        common: The test images that both were scored on.
        result: The differences on these images.
        params: How many pictures are shown.
        out: Where the page is written.
    """
    with tempfile.TemporaryDirectory(prefix="segpipe-compare-") as folder:
        context = _context(root, before, after, common, result, params, Path(folder))
        write_text(out, render("comparison.html.j2", **context))


def _context(
    root: Path,
    before: ComparisonSide,
    after: ComparisonSide,
    common: SharedImages,
    result: ComparisonResult,
    params: EvaluateParams,
    folder: Path,
) -> dict[str, Any]:
    """Collect everything that the template shows. folder: a temporary one, for files out of DVC's cache."""
    sides = (before, after)
    images, classes, no_pictures = _draw(sides, common, params.gallery, folder, result.metric)
    embedded = embed_images(images)
    labels = ConfusionLabels.of([common.before, common.after], classes)
    views = [(side.name, calibration_view(side.metrics)) for side in sides]
    lineages = [side.scores.lineage for side in sides]
    return {
        "before": before,
        "after": after,
        "names": [side.name for side in sides],
        "arguments": [shlex.quote(side.argument) for side in sides],
        "revisions": [side.revision.commit[:10] for side in sides if side.revision.commit],
        "scale": _scale(result),
        "common": common,
        "result": result,
        "main": result.metric,
        "sentence": verdict_sentence(result, before.name, after.name),
        "tone": {"better": "ready", "worse": "held"}.get(result.verdict, "unsure"),
        "detectable": none_if_nan(result.comparison.detectable),
        "p_value": none_if_nan(result.comparison.p_value),
        "changed": compare_states(before.state, after.state),
        "confusions": _confusions(sides, common, labels),
        "classes": labels.names,
        "colors": labels.colors,
        "reliability": [(name, view, reliability_chart(view)) for name, view in views if view],
        "further": further_scores([side.metrics for side in sides]),
        "curves": curve_charts(_fetch_curves(sides, folder)),
        "gallery": embedded,
        "tile": tile_ratio(embedded),
        "no_pictures": no_pictures,
        "layers": layer_names(embedded),
        "disagreement_legend": disagreement_legend(after.name, before.name),
        "legend": legend(classes) if classes else [],
        "titles": {kind: title.format(before=before.name, after=after.name) for kind, title in _GALLERY_TITLES.items()},
        "drawn_classes": list(range(1 if classes and has_background(classes) else 0, len(labels.names))),
        "lineage": [
            (fact.replace("_", " "), lineages[0].get(fact, ""), lineages[1].get(fact, ""))
            for fact in dict.fromkeys([*lineages[1], *lineages[0]])
        ],
    }


def _scale(result: ComparisonResult) -> Axis:
    """Make the axis on which both scores are drawn."""
    values = [v for v in (result.before, result.after) if v is not None]
    return axis(values, AXIS_START, AXIS_END, pad=0.5, least=0.0)


def _confusions(
    sides: tuple[ComparisonSide, ComparisonSide], common: SharedImages, labels: ConfusionLabels
) -> list[tuple[str, ConfusionMatrix]]:
    """Return (name, matrix) of each side; none if they were tested on different images, or if there are too many classes."""
    if not common.complete or len(labels.names) > MAX_MATRIX_CLASSES:
        return []
    return [(side.name, ConfusionMatrix.of(counts)) for side, counts in zip(sides, labels.counts, strict=True)]


def _fetch_curves(sides: tuple[ComparisonSide, ComparisonSide], folder: Path) -> dict[str, Path]:
    """Fetch the training curves of both sides; returns {name: folder}."""
    trainings = {}
    for index, side in enumerate(sides):
        training = folder / f"training-{index}"
        for split in ("train", "val"):
            path = f"plots/metrics/{split}"
            side.revision.fetch(f"training/{side.candidate}/{path}", "*.tsv", training / path)
        trainings[side.name] = training
    return trainings


def _draw(
    sides: tuple[ComparisonSide, ComparisonSide], common: SharedImages, each: int, folder: Path, main: str
) -> tuple[list[GalleryImage], ClassTable | None, str | None]:
    """Draw the images on which the two sides differ most.

    Returns:
        The images, the classes they are drawn with, and why there are no pictures (None if there are).
    """
    from segpipe.data.shards import ShardReader

    try:
        models = [
            ScoredModel(side.name, scores, _load_segmenter(side, folder / f"model-{index}"))
            for index, (side, scores) in enumerate(zip(sides, (common.before, common.after), strict=True))
        ]
        shards = folder / "shards"
        if not sides[1].revision.fetch("artifacts/shards", "test-*.arrow", shards):
            raise MissingError(
                "the test images are missing", where=sides[1].name, fix="dvc pull, or dvc fetch --all-commits"
            )
        images = draw_disagreements(models[1], models[0], ShardReader(shards, "test"), each, main)
        return images, models[1].segmenter.spec.classes, None
    except SegpipeError as error:
        return [], None, str(error)


def _load_segmenter(side: ComparisonSide, folder: Path) -> Segmenter:
    from segpipe.inference.trained_model import load_trained

    if not side.revision.fetch(f"models/{side.candidate}", "*", folder):
        raise MissingError(
            f"the model {side.candidate} is missing",
            where=side.name,
            fix="dvc pull, or dvc fetch --all-commits if a remote has it",
        )
    return load_trained(folder)
