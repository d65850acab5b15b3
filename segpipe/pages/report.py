"""The report: reports/report.html, which says what a selection chose and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.config import Params
from segpipe.evaluation.gallery.pictures import Gallery, has_background
from segpipe.evaluation.metric_lookup import compare_on
from segpipe.evaluation.metrics_file import MetricsFile
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.files import write_text
from segpipe.gates.case import Champion
from segpipe.gates.selection import Selection, SelectionOutline
from segpipe.gates.verdict_building import none_if_nan
from segpipe.metrics import MAIN_METRIC
from segpipe.pages.components.axes import axis
from segpipe.pages.components.confusion import ConfusionLabels, ConfusionMatrix
from segpipe.pages.components.curves import curve_charts
from segpipe.pages.components.disagreement import ScoredModel, differ, disagreement_legend, draw_disagreements
from segpipe.pages.components.forest import Forest, ForestRow, make_forest, slice_differences, slice_scores
from segpipe.pages.components.gallery import GalleryImage, embed_images, layer_names, read_gallery, tile_ratio
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.components.tables import class_rows, ranking_rows, score_axis
from segpipe.pages.environment import render
from segpipe.pages.plan_views import plan_views
from segpipe.pages.report_inputs import (
    CostRow,
    RobustnessView,
    calibration_view,
    costs,
    further_scores,
    read_metrics,
    robustness_view,
)
from segpipe.release.champion_file import ChampionFile
from segpipe.workspace.changes import ChangeGroup, State, compare_states
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint

_GALLERY_TITLES = {
    "behind": "Furthest behind the {other}",
    "ahead": "Furthest ahead of the {other}",
    "worst": "Worst",
    "typical": "Typical",
    "best": "Best",
}
"""The headings of the gallery, in their order."""


@dataclass(frozen=True)
class _Subject:
    """The winner and the champion that the report is about."""

    root: Path
    """The workspace."""
    selection: Selection
    params: Params
    shown: str
    """The candidate whose scores are shown in detail: the winner, or the first of the ranking."""
    scores: Mapping[str, Scores]
    """Scores on the test images, by candidate."""
    champion: Champion | None
    """The champion, if it can be compared with the winner."""
    champion_scores: Scores | None
    """Its scores, on the images of `scores` in their order."""

    @property
    def shown_scores(self) -> Scores:
        return self.scores[self.shown]


def write_report(
    root: Path,
    selection: Selection,
    params: Params,
    fingerprint: Fingerprint,
    out: Path,
    champion: Champion | None = None,
    shards: Path | None = None,
) -> None:
    """Write the page about a selection. The same inputs give the same bytes.

    Args:
        root: The workspace. evaluation/, training/ and plans/ are read; what is missing there is left out of the page.
        selection: The ranking, the winner and the verdicts of the gates.
        params: The parameters of the workspace.
        fingerprint: The dataset in numbers.
        out: Where the page is written.
        champion: The champion, scored on today's test images.
        shards: The test images. With them, with a champion and with models/WINNER, the gallery begins with the images on which
            winner and champion differ most.
    """
    write_text(out, render("report.html.j2", **_context(root, selection, params, fingerprint, champion, shards)))


def _context(
    root: Path,
    selection: Selection,
    params: Params,
    fingerprint: Fingerprint,
    champion: Champion | None,
    shards: Path | None,
) -> dict[str, Any]:
    """Collect everything that the template shows."""
    names = [entry.candidate for entry in selection.ranking]
    metrics = {name: read_metrics(root, name) for name in names}
    subject = _subject(root, selection, params, names, champion)
    shown, classes = subject.shown, fingerprint.classes
    rows = ranking_rows(selection)
    labels = ConfusionLabels.of([subject.shown_scores], classes)
    calibration, robustness = calibration_view(metrics[shown]), robustness_view(metrics[shown])
    return {
        "selection": selection,
        "params": params,
        "fingerprint": fingerprint,
        "shown": shown,
        "names": names,
        "main": selection.metric,
        "pixel_metric": MAIN_METRIC,
        "ranking": rows,
        "make_axis": axis,
        "scale": score_axis(rows, params, selection.metric),
        "lead": _lead(subject),
        "changed": changes_since_champion(root, shown, subject.shown_scores, subject.champion),
        "lineage": _lineage(subject),
        "class_rows": class_rows(subject.scores, shown, classes, params.evaluate),
        "labels": labels.names,
        "colors": labels.colors,
        "confusion": ConfusionMatrix.of(labels.counts[0]),
        "curves": curve_charts({name: Paths(root).training(name) for name in names}),
        "calibration": calibration,
        "reliability": reliability_chart(calibration) if calibration else None,
        "robustness": robustness,
        "drops": _drops(robustness),
        "slices": _slices(subject, metrics[shown]),
        "further": further_scores(list(metrics.values())),
        "costs": costs(root, metrics) + _champion_cost(root, subject.champion),
        "plans": plan_views(root, names),
        "folds": {name: content.val.folds for name, content in metrics.items() if content.val},
        "drawn_classes": list(range(1 if has_background(classes) else 0, len(labels.names))),
        **_gallery(subject, shards),
    }


def _subject(root: Path, selection: Selection, params: Params, names: list[str], champion: Champion | None) -> _Subject:
    scores = {name: read_scores(Paths(root).scores(name)) for name in names}
    shown = selection.winner or names[0]
    if champion is None or champion.scores is None or not selection.winner:
        return _Subject(root, selection, params, shown, scores, None, None)
    return _Subject(root, selection, params, shown, scores, champion, scores[shown].aligned(champion.scores))


def _lead(subject: _Subject) -> dict[str, Any] | None:
    """Compare the winner with the champion on the same images; None if there is no champion to compare with."""
    ours, theirs, main = subject.shown_scores, subject.champion_scores, subject.selection.metric
    if theirs is None:
        return None
    comparison = compare_on(main, ours, theirs, subject.params.evaluate)
    row = ForestRow.of_difference("difference", comparison, ours.value(main), theirs.value(main))
    return {"row": row, "detectable": none_if_nan(comparison.detectable)}


def changes_since_champion(root: Path, winner: str, scores: Scores, champion: Champion | None) -> list[ChangeGroup]:
    """List what changed since the champion was made: data, settings, plan and code.

    Args:
        root: The workspace.
        winner: The candidate that is compared with the champion.
        scores: Its scores, which name the code that it was made with.
        champion: The champion with its scores.

    Returns:
        One part per subject; empty if there is no champion, or if Git does not know its commit here.
    """
    from segpipe.errors import MissingError
    from segpipe.workspace.revisions import open_revision, open_workspace

    commit = ChampionFile.read(Paths(root).champion).commit
    if champion is None or champion.scores is None or not commit:
        return []
    try:
        revision = open_revision(root, commit)
    except MissingError:  # a clone without its history: the page shows less
        return []
    outline = SelectionOutline.parse(revision.read("selection.json"))
    former_winner = (outline.winner if outline else None) or winner
    code_before = {"segpipe": champion.scores.lineage.get("segpipe", ""), "candidate": former_winner}
    code_now = {"segpipe": scores.lineage.get("segpipe", ""), "candidate": winner}
    before = State.read(revision.read, former_winner, code_before)
    return compare_states(before, State.read(open_workspace(root).read, winner, code_now))


def _lineage(subject: _Subject) -> list[tuple[str, str, str]]:
    """Return (fact, value of the winner, value of the champion)."""
    ours = {"data": subject.selection.data_hash} | subject.shown_scores.lineage
    theirs = subject.champion_scores.lineage if subject.champion_scores else {}
    facts = dict.fromkeys([*ours, *theirs])
    return [(fact.replace("_", " "), ours.get(fact, ""), theirs.get(fact, "")) for fact in facts]


def _slices(subject: _Subject, metrics: MetricsFile) -> Forest | None:
    """The differences from the champion on each slice or, if there is no champion, the scores."""
    if subject.champion_scores is None:
        return slice_scores(metrics.test.slices or {} if metrics.test else {})
    evaluation, main = subject.params.evaluate, subject.selection.metric
    return slice_differences(subject.shown_scores, subject.champion_scores, evaluation, main)


def _drops(view: RobustnessView | None) -> Forest | None:
    """The losses under corruptions as a forest: one group per corruption, or a single one if each has only one severity."""
    if view is None:
        return None
    one_severity = len({drop.corruption for drop in view.drops}) == len(view.drops)
    groups: dict[str, list[ForestRow]] = {}
    for drop in view.drops:
        name = f"{drop.corruption}, {drop.severity}" if one_severity else drop.severity
        row = ForestRow(name, None, -drop.drop, _negated(drop.high), _negated(drop.low), drop.score)
        groups.setdefault("" if one_severity else drop.corruption, []).append(row)
    return make_forest(list(groups.items()), differences=True)


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _champion_cost(root: Path, champion: Champion | None) -> list[CostRow]:
    """The latency of the champion as its blessing measured it; empty if there is no champion, or if its tag is not here."""
    from segpipe.errors import MissingError
    from segpipe.release.registry import find_version

    try:
        release = find_version(root, champion.version) if champion else None
    except MissingError:  # a clone without tags: the page shows less
        return []
    if release is None:
        return []
    latency = (release.bless.p50_ms, release.bless.p95_ms)
    return [CostRow(release.version, latency=latency, engine=release.engine, served=True)]


def _gallery(subject: _Subject, shards: Path | None) -> dict[str, Any]:
    """Collect the pictures: first images on which winner and champion differ most, then those that `evaluate` chose."""
    champion, folder = subject.champion, Paths(subject.root).evaluation(subject.shown) / "gallery"
    gallery = Gallery.read(folder)
    images = [*_disagreements(subject, shards), *read_gallery(folder, gallery)]
    embedded = embed_images(images)
    compared = any(image.kind in ("behind", "ahead") for image in embedded)
    other = f"champion {champion.version}" if champion else "champion"
    return {
        "gallery": embedded,
        "left_out": len(images) - len(embedded),
        "layers": layer_names(embedded),
        "legend": gallery.legend,
        "tile": tile_ratio(embedded),
        "titles": {kind: title.format(other=other) for kind, title in _GALLERY_TITLES.items()},
        "disagreement_legend": disagreement_legend(subject.shown, champion.version) if champion and compared else [],
    }


def _disagreements(subject: _Subject, shards: Path | None) -> list[GalleryImage]:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.trained_model import load_trained

    champion, model = subject.champion, Paths(subject.root).model(subject.shown)
    if champion is None or subject.champion_scores is None or champion.segmenter is None:
        return []
    if shards is None or not model.is_dir():
        return []
    each, main = subject.params.evaluate.gallery, subject.selection.metric
    if not differ(subject.shown_scores, subject.champion_scores, each, main):
        return []  # loading the winner takes seconds, because it imports torch
    winner = ScoredModel(subject.shown, subject.shown_scores, load_trained(model))
    other = ScoredModel(champion.version, subject.champion_scores, champion.segmenter)
    return draw_disagreements(winner, other, ShardReader(shards, "test"), each, main)
