"""The page of `segpipe compare`: two contenders side by side, of the same make as the report."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from segpipe.config import EvaluateParams
from segpipe.errors import MissingError, SegpipeError
from segpipe.evaluation.gallery.pictures import has_background, legend
from segpipe.files import write_text
from segpipe.gates.verdict_building import none_if_nan
from segpipe.pages.comparison.result import ComparisonResult, verdict_sentence
from segpipe.pages.comparison.sides import ComparisonSide, SharedImages
from segpipe.pages.components.axes import Axis, axis
from segpipe.pages.components.confusion import ConfusionLabels, heat_cells, worst_confusions
from segpipe.pages.components.curves import curve_charts
from segpipe.pages.components.disagreement import ScoredModel, disagreement_legend, draw_disagreements
from segpipe.pages.components.gallery import GalleryImage, embed_images, layer_names, tile_ratio
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.report import MAX_MATRIX, render_page
from segpipe.pages.report_inputs import calibration_view, further_scores
from segpipe.samples import ClassTable
from segpipe.workspace.changes import compare_states

_KINDS = {"behind": "{after} is furthest behind {before}", "ahead": "{after} is furthest ahead of {before}"}


def write_comparison(
    root: Path,
    before: ComparisonSide,
    after: ComparisonSide,
    common: SharedImages,
    result: ComparisonResult,
    params: EvaluateParams,
    out: Path,
) -> None:
    """Write the page. Pictures need both models and the test images, of the workspace or out of DVC's cache; where one of them
    can't be had, the page says so."""
    with tempfile.TemporaryDirectory(prefix="segpipe-compare-") as folder:
        write_text(
            out, render_page("comparison.html.j2", _context(root, before, after, common, result, params, Path(folder)))
        )


def _context(
    root: Path,
    before: ComparisonSide,
    after: ComparisonSide,
    common: SharedImages,
    result: ComparisonResult,
    params: EvaluateParams,
    folder: Path,
) -> dict[str, Any]:
    sides = (before, after)
    pictures, classes, why_none = _pictures(root, before, after, common, params.gallery, folder, result.metric)
    embedded = embed_images(pictures)
    names = [side.name for side in sides]
    labels = ConfusionLabels.of([common.before, common.after], classes)
    matrices = labels.counts if common.everything else []
    drawn = [heat_cells(m) for m in matrices if len(m) <= MAX_MATRIX]
    views = [(side.name, calibration_view(side.metrics)) for side in sides]
    return {
        "before": before,
        "after": after,
        "names": names,
        "words": [shlex.quote(side.word) for side in sides],
        "revisions": [side.revision.commit[:10] for side in sides if side.revision.commit],
        "scale": _scale(result),
        "common": common,
        "result": result,
        "main": result.metric,
        "said": verdict_sentence(result, before.name, after.name),
        "tone": {"better": "ready", "worse": "held"}.get(result.verdict, "unsure"),
        "detectable": none_if_nan(result.found.detectable),
        "p_value": none_if_nan(result.found.p_value),
        "changed": compare_states(before.state, after.state),
        "confusions": [
            (name, cells, worst_confusions(m, 5), m.sum(1).tolist())
            for name, cells, m in zip(names, drawn, matrices, strict=False)
        ],
        "classes": labels.names,
        "colors": labels.colors,
        "reliability": [(name, view, reliability_chart(view)) for name, view in views if view],
        "further": further_scores([side.metrics for side in sides]),
        "charts": curve_charts(_trainings(sides, folder), 340, 190, 44),
        "gallery": embedded,
        "tile": tile_ratio(embedded),
        "why_none": why_none,
        "layers": layer_names(embedded),
        "parting": disagreement_legend(after.name, before.name),
        "legend": legend(classes) if classes else [],
        "kinds": {kind: words.format(before=before.name, after=after.name) for kind, words in _KINDS.items()},
        "drawn_classes": list(range(1 if classes and has_background(classes) else 0, len(labels.names))),
        "lineage": [
            (fact, before.scores.lineage.get(fact, ""), after.scores.lineage.get(fact, ""))
            for fact in dict.fromkeys([*after.scores.lineage, *before.scores.lineage])
        ],
    }


def _scale(result: ComparisonResult) -> Axis:
    """The axis on which both scores are drawn."""
    return axis([v for v in (result.before, result.after) if v is not None], 6, 294, pad=0.5, least=0.0)


def _trainings(sides: tuple[ComparisonSide, ComparisonSide], folder: Path) -> dict[str, Path]:
    """Curves of both trainings, fetched; {name: folder}."""
    found = {}
    for place, side in enumerate(sides):
        training = folder / f"training-{place}"
        for room in ("train", "val"):
            path = f"plots/metrics/{room}"
            side.revision.fetch(f"training/{side.candidate}/{path}", "*.tsv", training / path)
        found[side.name] = training
    return found


def _pictures(
    root: Path, before: ComparisonSide, after: ComparisonSide, common: SharedImages, each: int, folder: Path, main: str
) -> tuple[list[GalleryImage], ClassTable | None, str | None]:
    """The images on which the two part, the classes they are drawn by, and why there are none."""
    from segpipe.data.shards import ShardReader

    try:
        first, second = (
            ScoredModel(side.name, scores, _segmenter(side, folder / f"model-{place}"))
            for place, (side, scores) in enumerate(((before, common.before), (after, common.after)))
        )
        shards = folder / "shards"
        if not after.revision.fetch("artifacts/shards", "test-*.arrow", shards):
            raise MissingError(
                "the test images can't be had", where=after.name, fix="dvc pull, or dvc fetch --all-commits"
            )
        drawn = draw_disagreements(second, first, ShardReader(shards, "test"), each, main)
        return drawn, second.segmenter.spec.classes, None
    except SegpipeError as error:
        return [], None, str(error)


def _segmenter(side: ComparisonSide, folder: Path) -> Any:
    from segpipe.inference.trained_model import load_trained

    if not side.revision.fetch(f"models/{side.candidate}", "*", folder):
        raise MissingError(
            f"the model {side.candidate} can't be had",
            where=side.name,
            fix="dvc pull, or dvc fetch --all-commits where a remote has it",
        )
    return load_trained(folder)
