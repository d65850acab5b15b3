"""One candidate on the test split: metrics.json, per_image.parquet, confusion.csv and a gallery.

Images stream through the very `Segmenter` that serves, at the temperature that ships. The same model and images give the same
bytes, but for `cost` in metrics.json, which is measured (and which DVC therefore does not cache).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.errors import DataError
from segpipe.evaluation.calibration import CalibrationCounter, calibration_scores, fit_temperature_on
from segpipe.evaluation.cost import Cost, measure_cost
from segpipe.evaluation.gallery.pictures import Gallery, Picture, choose_pictures, draw, legend, save
from segpipe.evaluation.instance_counts import InstanceCounter, instance_scores
from segpipe.evaluation.metric_lookup import interval_of, metric_path
from segpipe.evaluation.robustness.drops import measure_robustness
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores, write_scores
from segpipe.evaluation.scoring import score_images
from segpipe.evaluation.slice_attributes import SliceAttributes, read_columns
from segpipe.evaluation.slices import score_slices
from segpipe.evaluation.surfaces import SurfaceRule, surface_summary
from segpipe.files import read_json, write_json, write_text
from segpipe.metrics import MAIN_METRIC, Counts, macro, scores
from segpipe.samples import IGNORE

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_ROWS_A_CLASS = 100
"""Rows of confusion.csv for each true class: a row is one percent of its pixels."""

_TABLED = (
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
"""What metrics.json holds, besides boundary IoU and without what counts absence as success (`empty1`). The rest follows from
per_image.parquet; micro Dice, precision and recall are all the pixel accuracy."""


@dataclass(frozen=True)
class CandidateFacts:
    """What is known beside the test images. columns: further traits of images, by key; temperature: fitted on the validation
    split, that of the segmenter's spec; weight_bytes: size of the weights."""

    columns: Mapping[str, SliceAttributes] = field(default_factory=dict)
    temperature: float | None = None
    weight_bytes: int | None = None
    val_ranked: float | None = None
    """The score on the validation split that candidates are ranked by, where that is another than `MAIN_METRIC`."""
    cost: Cost | None = None
    """What predictions cost, where it was measured."""
    folds: Mapping[str, Any] = field(default_factory=dict)
    """`scores` of the members of an ensemble, each on the fold that it left out, with `mean` and `sd`."""


def evaluate_model(model: Path, shards: Path, splits: Path, out: Path, params: EvaluateParams, name: str) -> None:
    """Score a trained model on the test split, at the temperature that fits the validation split.

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
    from segpipe.inference.spec import WEIGHTS_FILE
    from segpipe.inference.trained_model import load_trained

    history = read_json(model / "history.json")
    test, val, trained = ShardReader(shards, "test"), ShardReader(shards, "val"), load_trained(model)
    temperature = fit_temperature_on(trained, val)
    segmenter = trained if temperature is None else trained.at_temperature(temperature)
    known = CandidateFacts(
        columns=read_columns(splits),
        temperature=temperature,
        weight_bytes=(model / WEIGHTS_FILE).stat().st_size,
        val_ranked=measure_ranking_score(segmenter, val, params.rank_by),
        cost=measure_cost(segmenter, test) if len(test) else None,
        folds=history.get("folds", {}),
    )
    val_score = history.get("finished_score", history.get("best_score"))
    evaluate_candidate(segmenter, test, out, params, name, val_score=val_score, known=known)


def evaluate_candidate(
    segmenter: Segmenter,
    reader: ShardReader,
    out: Path,
    params: EvaluateParams,
    name: str,
    val_score: float | None = None,
    known: CandidateFacts = CandidateFacts(),
) -> None:
    """Score a model on a split and write what it did into `out` (evaluation/NAME).

    val_score: the model's score on the validation split (`MAIN_METRIC`), which chooses the winner; carried into metrics.json.
    known: what is known of images and model beforehand.
    Raises DataError where the split is empty or an image has no label.
    """
    classes = segmenter.spec.classes
    if not len(reader):
        raise DataError(
            "no image to score on",
            where=f"split {reader.split}",
            fix="raise `split.test` in params.yaml, or add images",
        )
    confidences, objects = CalibrationCounter(), InstanceCounter(len(classes))
    images = score_images(
        segmenter, reader, f"evaluate {name}", known.columns, SurfaceRule.of(params), confidences, objects
    )
    write_scores(
        out / "per_image.parquet", name, classes.names, dict(segmenter.spec.lineage), images, classes.overlapping
    )
    found = read_scores(out / "per_image.parquet")
    more = {
        "instance": instance_scores(found, objects, params),
        "robustness": measure_robustness(segmenter, reader, found, params, f"robustness {name}"),
    }
    told = collect_metrics(found, reader.split, params, val_score, known, confidences, more)
    write_json(out / "metrics.json", told)
    write_text(out / "confusion.csv", confusion_csv(found.confusion, found.labelling.names(classes.names)))
    _write_gallery(segmenter, reader, found, out / "gallery", params.gallery)


def measure_ranking_score(segmenter: Segmenter, reader: ShardReader, name: str) -> float | None:
    """The score on the validation split that the candidate is ranked by; None where that is `MAIN_METRIC`, which training has
    measured, and where it does not exist. Raises ConfigError where there is no such score."""
    if name == MAIN_METRIC:
        return None
    classes = segmenter.spec.classes
    images = score_images(segmenter, reader, "rank", objects=InstanceCounter(len(classes)))
    return Scores.collect(segmenter.spec.candidate, classes.names, {}, images, classes.overlapping).value(name)


def collect_metrics(
    found: Scores,
    split: str,
    params: EvaluateParams,
    val_score: float | None,
    known: CandidateFacts = CandidateFacts(),
    confidences: CalibrationCounter | None = None,
    more: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """metrics.json: numbers by `split.ratio.scope.average`, nested, as `dvc metrics show` and `dvc metrics diff` read them.

    A score that does not exist (a class that is in no image) has no key. `interval` holds the bounds of the main metric, at
    the confidence that params.yaml asks for; `surface` distances between surfaces; `slices` the main metric by part of the
    images; `calibration` how far confidences can be relied on; `model` what the model weighs. more: further parts by name.
    """
    values = {
        k: v
        for k, v in scores(found.tally, found.classes, found.overlapping).items()
        if _is_tabled(k) and v is not None
    }
    table: dict[str, Any] = {"images": len(found.keys), "pixels": int(found.confusion.sum())}
    for name, value in (values | found.boundary_iou()).items():
        _put(table, metric_path(name), round(value, 6))
    sure = interval_of(MAIN_METRIC, found, params)
    if not np.isnan(sure.low):
        _put(table, ["interval", *MAIN_METRIC.split(".", 2)], {"low": round(sure.low, 6), "high": round(sure.high, 6)})
    calibration = calibration_scores(found, params) | (confidences.table(found.classes) if confidences else {})
    parts = {
        "surface": surface_summary(found, params),
        "slices": score_slices(found, params),
        "calibration": calibration,
        **(more or {}),
    }
    table |= {name: part for name, part in parts.items() if part}
    out: dict[str, Any] = {split: table}
    ranked = {params.rank_by: known.val_ranked, MAIN_METRIC: val_score}
    for name, own in ranked.items():
        if own is not None:
            _put(out, ["val", *metric_path(name)], round(own, 6))
    if known.temperature is not None:
        _put(out, ["val", "calibration", "temperature"], round(known.temperature, 6))
    if known.folds:
        _put(out, ["val", "folds"], {key: known.folds[key] for key in ("mean", "sd")})
    if known.weight_bytes is not None:
        _put(out, ["model", "megabytes"], round(known.weight_bytes / 1e6, 6))
    if known.cost is not None:
        out["cost"] = known.cost.model_dump(exclude_none=True)
    return out


def _is_tabled(name: str) -> bool:
    parts = name.split(".")
    return name.startswith(_TABLED) and not (parts[1] == "image" and parts[2].endswith("_empty1"))


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = value


def confusion_csv(counts: Counts, classes: list[str]) -> str:
    """A table for `dvc plots` (template `confusion`), which counts rows: a hundred for each true class (or set of classes) that
    there is, dealt out to the predicted ones by the largest remainder (Hamilton's method). Rare classes are as visible as
    frequent ones.
    """
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["actual", "predicted"])
    for name, row in zip(classes, counts, strict=True):
        if not row.sum():
            continue
        share = row * (_ROWS_A_CLASS / row.sum())
        dealt = np.floor(share).astype(int)
        rest = np.argsort(dealt - share, kind="stable")[: _ROWS_A_CLASS - dealt.sum()]
        dealt[rest] += 1
        for predicted, times in zip(classes, dealt, strict=True):
            writer.writerows([[name, predicted]] * int(times))
    return stream.getvalue()


def _share_right(truth: np.ndarray, said: np.ndarray) -> float:
    """The share of counted pixels that got their label."""
    counted = truth != IGNORE
    return int(((truth == said) & counted).sum()) / max(int(counted.sum()), 1)


def _write_gallery(segmenter: Segmenter, reader: ShardReader, found: Scores, folder: Path, each: int) -> None:
    """Draw the chosen images. They are segmented again, which is cheaper than keeping every mask until the choice is made."""
    shutil.rmtree(folder, ignore_errors=True)
    classes = segmenter.spec.classes
    places = {"worst": 0, "typical": 0, "best": 0}
    pictures = []
    for kind, index in choose_pictures(found.of_images("iou.image.macro"), each):
        sample = reader[index]
        assert sample.labels is not None, "score_images has refused it"
        places[kind] += 1
        found_here = segmenter.predict(sample.image, spacing=sample.spacing, instances=sample.instances is not None)
        apart = found_here.instances.ids if found_here.instances is not None else None
        drawn = draw(
            sample.image, sample.labels, found_here.class_ids, classes, sample.spacing, (sample.instances, apart)
        )
        files = save(folder, f"{kind}-{places[kind]:02d}", drawn)
        tally = found.tally[index]
        height, width = drawn["image"].shape[:2]
        pictures.append(
            Picture(
                key=sample.key,
                kind=kind,
                iou_macro=round(float(macro("iou", tally)), 6),
                accuracy=round(_share_right(sample.labels, found_here.class_ids), 6),
                height=height,
                width=width,
                **files,
            )
        )
    Gallery(legend=legend(classes), pictures=pictures).write(folder)
