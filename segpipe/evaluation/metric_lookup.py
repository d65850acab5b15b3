"""Metrics by name: their values, intervals and comparisons, their place in metrics.json, and their names in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import RootModel

from segpipe.config import EvaluateParams, Params
from segpipe.errors import ConfigError
from segpipe.evaluation.instance_metrics import check_name, describe_instance_metric, is_instance
from segpipe.evaluation.paired_statistics import Comparison, compare
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Exchangeable, Interval, bootstrap
from segpipe.metrics import MAIN_METRIC, metric

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


def interval_of(name: str, scores: Scores, params: EvaluateParams) -> Interval:
    """Compute the confidence interval of a score, over groups of images if they are known.

    Args:
        name: a pixel metric (`iou.dataset.macro`) or an instance metric (`instance.f1_50`).
        scores: the model's counts on the test images.
        params: the number of resamples and the confidence.

    Raises:
        ConfigError: there is no metric of this name, or the model has no instance scores.
    """
    statistic = scores.statistic(name)
    return bootstrap(statistic, statistic.size, _resamples(statistic, params), params.confidence)


def compare_on(name: str, ours: Scores, theirs: Scores, params: EvaluateParams) -> Comparison:
    """Compare two models by one metric.

    Args:
        name: the metric, as in `interval_of`.
        ours: the counts of the first model.
        theirs: the counts of the second model, on the same images in the same order.
        params: the number of resamples and the confidence.

    Raises:
        ConfigError: there is no metric of this name, or a model has no instance scores.
    """
    first, second = ours.statistic(name), theirs.statistic(name)
    resamples = min(_resamples(statistic, params) for statistic in (first, second))
    return compare(first, second, resamples, params.confidence)


def _resamples(statistic: Exchangeable, params: EvaluateParams) -> int:
    return params.resamples if statistic.max_resamples is None else min(params.resamples, statistic.max_resamples)


def check_scores(params: Params, fingerprint: Fingerprint) -> None:
    """Check that the dataset has every metric that the ranking and the gates name, before training starts.

    Args:
        params: the settings of the workspace.
        fingerprint: the dataset in numbers; its classes decide which metrics exist.

    Raises:
        ConfigError: a metric does not exist.
    """
    gates = params.gates
    names = {f"gates.{key}.metric": getattr(gate, "metric", None) for key, gate in gates if gate is not None}
    if gates.class_floor is not None and is_instance(gates.class_floor.ratio):
        names["gates.class_floor.ratio"] = gates.class_floor.ratio
    for where, name in {"evaluate.rank_by": params.evaluate.rank_by, **names}.items():
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
    """Return the few scores that tables of models show.

    Args:
        scores: the model's counts on the test images.
        first: the metric that candidates are ranked by, which comes first.

    Returns:
        Values by metric; None for a score that does not exist.
    """
    names = (first, MAIN_METRIC, "iou.dataset.micro", "iou.image.macro", "dice.dataset.macro", "accuracy.pixel")
    return {name: scores.value(name) for name in names if scores.knows(name)}


def metric_path(name: str) -> list[str]:
    """Return the keys in metrics.json that lead to a metric. The name of a class may contain dots."""
    if name.startswith("instance.class."):
        return ["instance", "class", *name.removeprefix("instance.class.").rsplit(".", 1)]
    return name.split(".", 3 if name.split(".")[1:3] == ["image", "class"] else 2)


class ScoreTable(RootModel[dict[str, "float | ScoreTable"]]):
    """Scores nested by the parts of their names, as in metrics.json: {"iou": {"dataset": {"macro": 0.9}}}."""

    def value(self, name: str) -> float | None:
        """Return the value of a metric; None if the table does not have it."""
        entry: float | ScoreTable | None = self
        for key in metric_path(name):
            entry = entry.root.get(key) if isinstance(entry, ScoreTable) else None
        return None if isinstance(entry, ScoreTable) else entry

    def put(self, name: str, value: float) -> None:
        """Enter the value of a metric."""
        *keys, last = metric_path(name)
        table = self
        for key in keys:
            inner = table.root.setdefault(key, ScoreTable({}))
            assert isinstance(inner, ScoreTable), f"{key} is a number in the table, and a part of {name}"
            table = inner
        table.root[last] = value


def describe_metric(name: str) -> str:
    """Describe a metric in words: `iou.dataset.macro` -> "IoU (macro, dataset)"."""
    if name == "accuracy.pixel":
        return "pixel accuracy"
    if is_instance(name):
        return describe_instance_metric(name)
    ratio, scope, rest = name.split(".", 2)
    label = {"iou": "IoU", "dice": "Dice", "mcc": "Matthews correlation"}.get(ratio, ratio)
    if scope == "class":
        return f"{label} of class {rest}"
    if scope == "image" and rest.startswith(("class.", "class_empty1.")):
        form, class_name = rest.split(".", 1)
        return f"{label} of class {class_name} ({'image, absence counts 1' if form.endswith('empty1') else 'image'})"
    return f"{label} ({rest.replace('_empty1', ', absence counts 1')}, {scope})"
