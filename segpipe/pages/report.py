"""reports/report.html: what came out and why, as one page that needs no network, no server and no script to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import EvaluateParams, Params
from segpipe.evaluation.gallery.pictures import Gallery, has_background
from segpipe.evaluation.metric_lookup import compare_on, describe_metric
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.files import write_text
from segpipe.gates.case import Champion
from segpipe.gates.selection import Selection, SelectionOutline
from segpipe.gates.verdict_building import none_if_nan
from segpipe.metrics import MAIN_METRIC
from segpipe.pages.components.axes import axis
from segpipe.pages.components.confusion import ConfusionLabels, heat_cells, worst_confusions
from segpipe.pages.components.curves import curve_charts
from segpipe.pages.components.disagreement import ScoredModel, disagreement_legend, draw_disagreements
from segpipe.pages.components.forest import Forest, ForestRow, make_forest, slice_differences, slice_scores
from segpipe.pages.components.gallery import GalleryImage, embed_images, layer_names, read_gallery, tile_ratio
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.components.tables import class_rows, ranking_rows, score_axis
from segpipe.pages.plan_views import plan_views
from segpipe.pages.report_inputs import (
    CostRow,
    RobustnessView,
    calibration_view,
    costs,
    further_scores,
    read_section,
    robustness_view,
    section,
)
from segpipe.release.champion_file import ChampionFile
from segpipe.workspace.changes import ChangeGroup, State, compare_states

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint

TEMPLATES = Path(__file__).parent / "templates"

MAX_MATRIX = 40
"""Classes of the largest confusion matrix that is drawn; of more, only the worst confusions are listed."""

KINDS = {
    "behind": "Furthest behind the {other}",
    "ahead": "Furthest ahead of the {other}",
    "worst": "Worst",
    "typical": "Typical",
    "best": "Best",
}
"""Headings of the gallery, in their order."""


def write_report(
    root: Path,
    selection: Selection,
    params: Params,
    fingerprint: Fingerprint,
    out: Path,
    champion: Champion | None = None,
    shards: Path | None = None,
) -> None:
    """Write the page about a selection. Reads evaluation/, training/ and plans/ of the workspace, whatever of it is there.

    champion: what serves now, as it did on today's test images; shards: these images, from which the gallery is drawn on which
    the two differ most (it needs models/WINNER too). The same inputs give the same bytes.
    """
    write_text(out, render_page("report.html.j2", _context(root, selection, params, fingerprint, champion, shards)))


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """A page from a template of this folder, with its style and script inside. Text is escaped; a name that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from segpipe.pages.environment import TOKENS

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": score,
        "signed": signed,
        "percent": percent,
        "p_value": p_value,
        "words": describe_metric,
    }
    return environment.get_template(template).render(
        **context,
        css=TOKENS.read_text() + (TEMPLATES / "report.css").read_text(),
        js=(TEMPLATES / "report.js").read_text(),
    )


def _context(
    root: Path,
    selection: Selection,
    params: Params,
    fingerprint: Fingerprint,
    champion: Champion | None,
    shards: Path | None,
) -> dict[str, Any]:
    """Everything that the template shows."""
    names = [entry.candidate for entry in selection.ranking]
    shown = selection.winner or names[0]
    scores = {name: read_scores(root / "evaluation" / name / "per_image.parquet") for name in names}
    measured = {name: read_section(root / "evaluation" / name / "metrics.json") for name in names}
    metrics, main = measured[shown], selection.metric
    rows, classes = ranking_rows(selection), fingerprint.classes
    labels = ConfusionLabels.of([scores[shown]], classes)
    counts = labels.counts[0]
    beside = champion if champion and champion.scores and selection.winner else None
    live = scores[shown].aligned(beside.scores) if beside and beside.scores else None
    calibration, robustness = calibration_view(metrics), robustness_view(metrics)
    return {
        "selection": selection,
        "params": params,
        "fingerprint": fingerprint,
        "shown": shown,
        "main": main,
        "pixels": MAIN_METRIC,
        "models": rows,
        "axis": axis,
        "scale": score_axis(rows, params, main),
        "lead": _lead(main, scores[shown], live, params.evaluate),
        "changed": changes_since(root, shown, scores[shown], beside),
        "lineage": _lineage(scores[shown], selection, beside),
        "class_rows": class_rows(scores, shown, classes, params.evaluate),
        "labels": labels.names,
        "colors": labels.colors,
        "cells": heat_cells(counts) if len(counts) <= MAX_MATRIX else [],
        "confusions": worst_confusions(counts, 5),
        "totals": counts.sum(1).tolist(),
        "charts": curve_charts({name: root / "training" / name for name in names}, 340, 190, 44),
        "calibration": calibration,
        "reliability": reliability_chart(calibration) if calibration else None,
        "robustness": robustness,
        "drops": _drops(robustness),
        "slices": slice_differences(scores[shown], live, params.evaluate, main)
        if live
        else slice_scores(section(metrics, "test", "slices")),
        "further": further_scores(list(measured.values())),
        "names": names,
        "costs": costs(root, names) + _champion_cost(root, beside),
        "plans": plan_views(root, names),
        "folds": {name: section(told, "val", "folds") for name, told in measured.items()},
        **_gallery(root, shown, scores[shown], beside, live, shards, params.evaluate.gallery, main),
        "drawn_classes": list(range(1 if has_background(classes) else 0, len(labels.names))),
    }


def _lead(main: str, winner: Scores, live: Scores | None, params: EvaluateParams) -> dict[str, Any] | None:
    """The winner's lead over the champion on the same images; None where there is none to compare with."""
    if live is None:
        return None
    found = compare_on(main, winner, live, params)
    difference = found.difference
    row = ForestRow(
        "difference",
        None,
        difference.estimate,
        none_if_nan(difference.low),
        none_if_nan(difference.high),
        winner.value(main),
        live.value(main),
        none_if_nan(found.p_value),
    )
    return {"row": row, "detectable": none_if_nan(found.detectable), "verdict": found.verdict}


def changes_since(root: Path, winner: str, scores: Scores, champion: Champion | None) -> list[ChangeGroup]:
    """What changed since the champion was made; empty where there is no champion, or its commit isn't known here."""
    from segpipe.errors import MissingError
    from segpipe.workspace.revisions import open_revision, open_workspace

    commit = ChampionFile.read(root / "champion.json").commit
    if champion is None or champion.scores is None or not commit:
        return []
    try:
        then = open_revision(root, commit)
    except MissingError:  # a clone without its history: the page says less
        return []
    outline = SelectionOutline.parse(then.read("selection.json"))
    former = (outline.winner if outline else None) or winner
    before = State.read(then.read, former, {"segpipe": champion.scores.lineage.get("segpipe", ""), "candidate": former})
    code = {"segpipe": scores.lineage.get("segpipe", ""), "candidate": winner}
    return compare_states(before, State.read(open_workspace(root).read, winner, code))


def _lineage(scores: Scores, selection: Selection, champion: Champion | None) -> list[tuple[str, str, str]]:
    """(fact, of the winner, of the champion)."""
    ours = {"data": selection.data_hash} | scores.lineage
    theirs = champion.scores.lineage if champion and champion.scores else {}
    return [
        (name.replace("_", " "), ours.get(name, ""), theirs.get(name, "")) for name in dict.fromkeys([*ours, *theirs])
    ]


def _drops(view: RobustnessView | None) -> Forest | None:
    """The drops as a forest: a group a corruption, or one of all where each was tried at one strength."""
    if view is None:
        return None
    single = len({drop.corruption for drop in view.drops}) == len(view.drops)
    groups: dict[str, list[ForestRow]] = {}
    for drop in view.drops:
        title, name = ("", f"{drop.corruption}, {drop.severity}") if single else (drop.corruption, drop.severity)
        row = ForestRow(name, None, -drop.drop, _minus(drop.high), _minus(drop.low), drop.score)
        groups.setdefault(title, []).append(row)
    return make_forest(list(groups.items()), apart=True)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _champion_cost(root: Path, champion: Champion | None) -> list[CostRow]:
    """How fast what serves now answers, as its blessing measured it; nothing where its tag isn't here."""
    from segpipe.errors import MissingError
    from segpipe.release.registry import find_version

    try:
        made = find_version(root, champion.version) if champion else None
    except MissingError:  # a clone without tags: the page says less
        return []
    if made is None:
        return []
    return [CostRow(made.version, latency=(made.bless.p50_ms, made.bless.p95_ms), engine=made.engine, served=True)]


def _gallery(
    root: Path,
    shown: str,
    ours: Scores,
    champion: Champion | None,
    live: Scores | None,
    shards: Path | None,
    each: int,
    main: str,
) -> dict[str, Any]:
    folder = root / "evaluation" / shown / "gallery"
    gallery = Gallery.read(folder)
    pictures = read_gallery(folder, gallery)
    if champion and champion.segmenter and live and shards and (root / "models" / shown).is_dir():
        pictures = [*_apart(root, shown, ours, champion, live, shards, each, main), *pictures]
    embedded = embed_images(pictures)
    parted = champion is not None and any(shot.kind in ("behind", "ahead") for shot in embedded)
    other = f"champion {champion.version}" if champion else "champion"
    return {
        "gallery": embedded,
        "left_out": len(pictures) - len(embedded),
        "layers": layer_names(embedded),
        "legend": gallery.legend,
        "tile": tile_ratio(embedded),
        "kinds": {kind: words.format(other=other) for kind, words in KINDS.items()},
        "parting": disagreement_legend(shown, champion.version) if champion and parted else [],
    }


def _apart(
    root: Path, shown: str, ours: Scores, champion: Champion, live: Scores, shards: Path, each: int, main: str
) -> list[GalleryImage]:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.trained_model import load_trained

    assert champion.segmenter is not None
    winner = ScoredModel(shown, ours, load_trained(root / "models" / shown))
    other = ScoredModel(champion.version, live, champion.segmenter)
    return draw_disagreements(winner, other, ShardReader(shards, "test"), each, main)


def score(value: float | None, digits: int = 3) -> str:
    """0.1234 -> "0.123"; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """As `score`, with a plus where it is above 0."""
    text = score(value, digits)
    return f"+{text}" if value is not None and not math.isnan(value) and value > 0 else text


def p_value(value: float | None) -> str:
    """0.0123 -> "p = 0.012"; what is smaller than three digits show, as that."""
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {score(value)}"


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"."""
    return f"{100 * value:.{digits}f} %"
