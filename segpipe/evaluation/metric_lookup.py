"""Scores by name: where they stand, and how sure they are, of one model and of two on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.config import EvaluateParams, Params
from segpipe.errors import ConfigError
from segpipe.evaluation.instance_metrics import check_name, is_instance
from segpipe.evaluation.instance_metrics import describe_instance_metric as instance_metric_words
from segpipe.evaluation.paired_statistics import Comparison, compare
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Exchangeable, Interval, bootstrap
from segpipe.metrics import MAIN_METRIC, metric

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


def interval_of(name: str, scores: Scores, params: EvaluateParams) -> Interval:
    """The confidence interval of a model's score, over groups where they are known.

    name: of pixels (`iou.dataset.macro`) or of objects (`instance.f1_50`); raises ConfigError where there is no such score.
    """
    of = scores.statistic(name)
    return bootstrap(of, of.size, _resamples(of, params), params.confidence)


def compare_on(name: str, ours: Scores, theirs: Scores, params: EvaluateParams) -> Comparison:
    """Compare two models by a score, as `interval_of` names it, on the same images in the same order."""
    first, second = ours.statistic(name), theirs.statistic(name)
    return compare(first, second, min(_resamples(of, params) for of in (first, second)), params.confidence)


def _resamples(of: Exchangeable, params: EvaluateParams) -> int:
    return params.resamples if of.most_resamples is None else min(params.resamples, of.most_resamples)


def check_scores(params: Params, fingerprint: Fingerprint) -> None:
    """Raise ConfigError where the ranking or a gate names a score that this dataset has not: before training, not after."""
    gates = params.gates
    named = {f"gates.{key}.metric": getattr(gate, "metric", None) for key, gate in gates if gate is not None}
    if gates.class_floor is not None and is_instance(gates.class_floor.ratio):
        named["gates.class_floor.ratio"] = gates.class_floor.ratio
    for where, name in {"evaluate.rank_by": params.evaluate.rank_by, **named}.items():
        if name is None:
            continue
        try:
            if is_instance(name):
                check_name(name, fingerprint.classes.names, fingerprint.instances)
            else:
                metric(name, fingerprint.classes.names, fingerprint.classes.overlapping)
        except ConfigError as error:
            raise ConfigError(
                error.what, where=f"params.yaml: {where}", found=error.found, expected=error.expected, fix=error.fix
            ) from error


def main_scores(scores: Scores, first: str = MAIN_METRIC) -> dict[str, float | None]:
    """The few scores that tables of models show, with the one that they are ranked by ahead."""
    few = (first, MAIN_METRIC, "iou.dataset.micro", "iou.image.macro", "dice.dataset.macro", "accuracy.pixel")
    return {name: scores.value(name) for name in few if scores.knows(name)}


def metric_path(name: str) -> list[str]:
    """The keys in metrics.json under which a metric stands. A class's name may hold dots."""
    if name.startswith("instance.class."):
        return ["instance", "class", *name.removeprefix("instance.class.").rsplit(".", 1)]
    return name.split(".", 3 if name.split(".")[1:3] == ["image", "class"] else 2)


def describe_metric(name: str) -> str:
    """A metric's name in words: `iou.dataset.macro` -> "IoU (macro, dataset)"."""
    if name == "accuracy.pixel":
        return "pixel accuracy"
    if is_instance(name):
        return instance_metric_words(name)
    ratio, scope, rest = name.split(".", 2)
    called = {"iou": "IoU", "dice": "Dice", "mcc": "Matthews correlation"}.get(ratio, ratio)
    if scope == "class":
        return f"{called} of class {rest}"
    if scope == "image" and rest.startswith(("class.", "class_empty1.")):
        form, class_name = rest.split(".", 1)
        return f"{called} of class {class_name} ({'image, absence counts 1' if form.endswith('empty1') else 'image'})"
    return f"{called} ({rest.replace('_empty1', ', absence counts 1')}, {scope})"
