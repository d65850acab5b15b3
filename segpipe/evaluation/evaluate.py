"""Evaluation of one candidate on the test split: metrics.json, per_image.parquet, confusion.csv and a gallery.

Images stream through the same `Segmenter` that serves, with the temperature that is shipped, on an engine that computes in float32
(`segpipe.inference.engines.checked_graph`). The same model and images give the same bytes, except for `cost` in metrics.json, which is
measured (and which DVC therefore does not cache).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.errors import DataError
from segpipe.evaluation.calibration import CalibrationCounter, calibration_scores, fit_temperature_on
from segpipe.evaluation.cost import Cost, measure_cost
from segpipe.evaluation.gallery.kept_masks import KeptMasks
from segpipe.evaluation.gallery.write import write_gallery
from segpipe.evaluation.instance_counts import InstanceCounter, instance_scores
from segpipe.evaluation.metric_lookup import ScoreTable, interval_of, metric_path
from segpipe.evaluation.metrics_file import (
    DIGITS,
    METRICS_FILE,
    ConfidenceBounds,
    FittedTemperature,
    FoldSummary,
    InstanceScores,
    MetricsFile,
    ModelSize,
    RobustnessScores,
    ScoresOnTest,
    ScoresOnVal,
)
from segpipe.evaluation.robustness.drops import measure_robustness
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import confusion_csv, read_scores, write_scores
from segpipe.evaluation.scoring import score_images
from segpipe.evaluation.slice_attributes import SliceAttributes, read_columns
from segpipe.evaluation.slices import score_slices
from segpipe.evaluation.surfaces import SurfaceRule, surface_summary
from segpipe.files import write_text
from segpipe.metrics import MAIN_METRIC, scores
from segpipe.progress import say

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_WRITTEN_METRICS = (
    "iou.",
    "dice.dataset.macro",
    "dice.image.macro",
    "dice.class.",
    "dice.image.class.",
    "accuracy.",
    "mcc.dataset.",
    "precision.dataset.macro",
    "recall.dataset.macro",
)
"""Beginnings of the names of metrics that metrics.json holds, in addition to boundary IoU, without those that count absence as success
(`empty1`). The others follow from per_image.parquet; micro Dice, precision and recall all equal the pixel accuracy."""


@dataclass(frozen=True)
class CandidateFacts:
    """The facts about a candidate and the test images before they are scored; None or empty if unknown.

    Attributes:
        attributes: further attributes of images for slices, by key.
        temperature: the temperature that was fitted on the validation split and that the segmenter applies.
        weight_bytes: the size of the weights.
        ranking_score: the score on the validation split by which candidates are ranked, if that is not `MAIN_METRIC`.
        cost: of predictions.
        folds: scores of the members of an ensemble, each on the fold that it was not trained on.
    """

    attributes: Mapping[str, SliceAttributes] = field(default_factory=dict)
    temperature: float | None = None
    weight_bytes: int | None = None
    ranking_score: float | None = None
    cost: Cost | None = None
    folds: FoldSummary | None = None


def evaluate_model(model: Path, shards: Path, splits: Path, out: Path, params: EvaluateParams, name: str) -> None:
    """Score a trained model on the test split, with the temperature that fits the validation split.

    Args:
        model: the folder that training wrote (models/NAME).
        shards: the folder that `prepare` wrote.
        splits: its table of splits, whose further columns become slices.
        out: the folder to write (evaluation/NAME).
        params: the section `evaluate` of params.yaml.
        name: the candidate.

    Raises:
        DataError: the test split is empty, or one of its images has no label.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.inference.engines.checked_graph import GraphMismatch, on_graph
    from segpipe.inference.scoring import trained_for_scoring
    from segpipe.inference.spec import WEIGHTS_FILE
    from segpipe.inference.trained_model import load_trained
    from segpipe.training.telemetry.history import TrainingHistory

    history, trained = TrainingHistory.read(model), load_trained(model)
    weight_bytes = (model / WEIGHTS_FILE).stat().st_size
    test, val = ShardReader(shards, "test"), ShardReader(shards, "val")
    attributes = read_columns(splits)
    folds = FoldSummary(mean=history.folds.mean, sd=history.folds.sd) if history.folds else None

    def evaluate(uncalibrated: Segmenter, one_at_a_time: Segmenter) -> None:
        temperature = fit_temperature_on(uncalibrated, val)
        segmenter = uncalibrated if temperature is None else uncalibrated.at_temperature(temperature)
        ranking_score = measure_ranking_score(segmenter, val, params.rank_by, history.val_score)
        val_score = ranking_score if params.rank_by == MAIN_METRIC and history.val_score is None else history.val_score
        facts = CandidateFacts(
            attributes=attributes,
            temperature=temperature,
            weight_bytes=weight_bytes,
            ranking_score=ranking_score,
            cost=measure_cost(one_at_a_time, test) if len(test) else None,
            folds=folds,
        )
        evaluate_candidate(segmenter, test, out, params, name, val_score=val_score, facts=facts)

    with tempfile.TemporaryDirectory(prefix="segpipe-graphs-") as folder:
        try:
            scored = trained_for_scoring(trained, Path(folder), test)
            evaluate(scored, on_graph(trained, Path(folder), check=False))
        except GraphMismatch as error:
            say(f"evaluate {name}: {error}; torch, which is slower, scores the model")
            evaluate(trained, trained)


def evaluate_candidate(
    segmenter: Segmenter,
    reader: ShardReader,
    out: Path,
    params: EvaluateParams,
    name: str,
    val_score: float | None = None,
    facts: CandidateFacts = CandidateFacts(),
) -> None:
    """Score a model on the test split and write the results.

    Args:
        segmenter: the model.
        reader: the test split.
        out: the folder to write (evaluation/NAME).
        params: the section `evaluate` of params.yaml.
        name: the candidate.
        val_score: the model's score on the validation split (`MAIN_METRIC`), which chooses the winner; copied into metrics.json.
        facts: what is known about the model and the images.

    Raises:
        DataError: the split is empty, or an image has no label.
    """
    classes = segmenter.spec.classes
    if not len(reader):
        raise DataError(
            "no image to score",
            where=f"split {reader.split}",
            fix="increase `split.test` in params.yaml, or add images",
        )
    confidences, counter = CalibrationCounter(), InstanceCounter(len(classes))
    surfaces, kept = SurfaceRule.from_params(params), KeptMasks()
    label = f"evaluate {name}"
    images = score_images(segmenter, reader, label, facts.attributes, surfaces, confidences, counter, kept)
    write_scores(
        out / "per_image.parquet", name, classes.names, dict(segmenter.spec.lineage), images, classes.overlapping
    )
    result = read_scores(out / "per_image.parquet")
    instances = instance_scores(result, counter, params)
    robustness = measure_robustness(segmenter, reader, result, params, f"robustness {name}")
    metrics = collect_metrics(result, params, val_score, facts, confidences, instances, robustness)
    metrics.model_copy(update={"engine": segmenter.engine.name}).write(out / METRICS_FILE)
    write_text(out / "confusion.csv", confusion_csv(result.confusion, result.labelling.names(classes.names)))
    write_gallery(segmenter, reader, result, out / "gallery", params.gallery, kept)


def measure_ranking_score(
    segmenter: Segmenter, reader: ShardReader, name: str, trained_score: float | None = None
) -> float | None:
    """Compute the score by which a candidate is ranked.

    Args:
        segmenter: the model.
        reader: the validation split.
        name: the metric by which candidates are ranked.
        trained_score: `MAIN_METRIC` on all images of the split, as training has measured it; None if it has not.

    Returns:
        The score; None if it does not exist, or if training has measured it.

    Raises:
        ConfigError: there is no metric of this name.
    """
    if name == MAIN_METRIC and trained_score is not None:
        return None
    classes = segmenter.spec.classes
    images = score_images(segmenter, reader, "rank", instances=InstanceCounter(len(classes)))
    return Scores.collect(segmenter.spec.candidate, classes.names, {}, images, classes.overlapping).value(name)


def collect_metrics(
    result: Scores,
    params: EvaluateParams,
    val_score: float | None,
    facts: CandidateFacts = CandidateFacts(),
    confidences: CalibrationCounter | None = None,
    instances: InstanceScores | None = None,
    robustness: RobustnessScores | None = None,
) -> MetricsFile:
    """Collect everything that was measured of a candidate into the content of metrics.json.

    Args:
        result: the counts of the test images.
        params: the section `evaluate` of params.yaml.
        val_score: the model's score on the validation split (`MAIN_METRIC`).
        facts: what is known about the model and the images.
        confidences: the confidences of the split, for the calibration before the temperature and by class.
        instances: instance scores.
        robustness: scores on corrupted images.
    """
    return MetricsFile(
        test=_scores_on_test(result, params, confidences, instances, robustness),
        val=_scores_on_val(params, val_score, facts),
        model=None if facts.weight_bytes is None else ModelSize(megabytes=round(facts.weight_bytes / 1e6, DIGITS)),
        cost=facts.cost,
    )


def _scores_on_test(
    result: Scores,
    params: EvaluateParams,
    confidences: CalibrationCounter | None,
    instances: InstanceScores | None,
    robustness: RobustnessScores | None,
) -> ScoresOnTest:
    values = {
        name: value
        for name, value in scores(result.tally, result.classes, result.overlapping).items()
        if _is_written(name) and value is not None
    }
    table = ScoreTable({})
    for name, value in (values | result.boundary_iou()).items():
        table.put(name, round(value, DIGITS))
    assert table.root.keys() <= ScoresOnTest.model_fields.keys(), "each family of metrics is a field"
    main = interval_of(MAIN_METRIC, result, params)
    family, level, average = metric_path(MAIN_METRIC)
    bounds = ConfidenceBounds(low=round(main.low, DIGITS), high=round(main.high, DIGITS))
    parts: dict[str, Any] = {
        **table.root,
        "interval": None if np.isnan(main.low) else {family: {level: {average: bounds}}},
        "surface": surface_summary(result, params),
        "slices": score_slices(result, params) or None,
        "calibration": calibration_scores(result, params, confidences),
        "instance": instances,
        "robustness": robustness,
    }
    return ScoresOnTest(images=len(result.keys), pixels=int(result.confusion.sum()), **parts)


def _scores_on_val(params: EvaluateParams, val_score: float | None, facts: CandidateFacts) -> ScoresOnVal | None:
    table = ScoreTable({})
    for name, score in {params.rank_by: facts.ranking_score, MAIN_METRIC: val_score}.items():
        if score is not None:
            table.put(name, round(score, DIGITS))
    calibration = None
    if facts.temperature is not None:
        calibration = FittedTemperature(temperature=round(facts.temperature, DIGITS))
    result = ScoresOnVal.model_validate({**table.root, "calibration": calibration, "folds": facts.folds})
    return None if result == ScoresOnVal() else result


def _is_written(name: str) -> bool:
    parts = name.split(".")
    return name.startswith(_WRITTEN_METRICS) and not (parts[1] == "image" and parts[2].endswith("_empty1"))
