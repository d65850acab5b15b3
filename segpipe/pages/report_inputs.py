"""What the report shows of files that other stages wrote: metrics.json, plans, trainings. A file of another shape shows less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.evaluation.instance_metrics import DESCRIPTIONS as OF_OBJECTS
from segpipe.files import read_json

SEVERITY_ORDER = ("light", "medium", "strong")


def section(content: Any, *path: str) -> dict[str, Any]:
    """The mapping at a path of nested ones; empty where there is none."""
    for key in path:
        content = content.get(key) if isinstance(content, Mapping) else None
    return dict(content) if isinstance(content, Mapping) else {}


def read_section(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; empty where there is no such file."""
    return section(read_json(path)) if path.is_file() else {}


def _number(content: Mapping[str, Any], key: str) -> float | None:
    value = content.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels of about the same confidence: their mean confidence, the share that is right, and their share of all pixels."""

    confidence: float
    right: float
    share: float


@dataclass(frozen=True)
class CalibrationView:
    """A reliability diagram and its errors, as shipped; the errors before the temperature where they were measured too."""

    bins: list[ReliabilityBin]
    ece: float
    low: float | None
    high: float | None
    mce: float | None
    temperature: float | None
    ece_before: float | None
    before: list[ReliabilityBin]


def calibration_view(metrics: Mapping[str, Any]) -> CalibrationView | None:
    """Of `test.calibration` in metrics.json; None where confidences were not measured."""
    found = section(metrics, "test", "calibration")
    ece, bins = _number(found, "ece"), _bins(found.get("curve"))
    if ece is None or not bins:
        return None
    before = section(found, "thinned", "before")
    return CalibrationView(
        bins,
        ece,
        _number(section(found, "interval"), "low"),
        _number(section(found, "interval"), "high"),
        _number(found, "mce"),
        _number(section(metrics, "val", "calibration"), "temperature"),
        _number(before, "ece"),
        _bins(before.get("curve")),
    )


def _bins(curve: Any) -> list[ReliabilityBin]:
    """curve: rows from the lowest bin on; a mapping by bin in files of earlier versions."""
    ordered = [curve[key] for key in sorted(curve)] if isinstance(curve, Mapping) else curve
    rows = [section(row) for row in ordered] if isinstance(ordered, list) else []
    known = [row for row in rows if {"pixels", "confidence", "right"} <= row.keys()]
    total = sum(row["pixels"] for row in known) or 1
    return [ReliabilityBin(row["confidence"], row["right"], row["pixels"] / total) for row in known]


@dataclass(frozen=True)
class DropRow:
    """What a model loses where images are spoilt in one way, so much: score on the images as they are less that on the spoilt."""

    corruption: str
    severity: str
    score: float | None
    drop: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RobustnessView:
    """Drops by corruption, the largest first, and the images that they rest on."""

    images: int | None
    drops: list[DropRow]


def robustness_view(metrics: Mapping[str, Any]) -> RobustnessView | None:
    """Of `test.robustness` in metrics.json; None where it was not measured."""
    found = section(metrics, "test", "robustness")
    rows = [
        DropRow(
            name.replace("_", " "), severity, _number(told, "score"), drop, _number(told, "low"), _number(told, "high")
        )
        for name, severities in section(found, "by").items()
        for severity, told in section(severities).items()
        if isinstance(told, Mapping) and (drop := _number(told, "drop")) is not None
    ]
    if not rows:
        return None
    worst = {name: max(r.drop for r in rows if r.corruption == name) for name in {r.corruption for r in rows}}
    rank = {word: place for place, word in enumerate(SEVERITY_ORDER)}
    rows.sort(key=lambda r: (-worst[r.corruption], r.corruption, rank.get(r.severity, 0), r.severity))
    images = _number(found, "images")
    return RobustnessView(None if images is None else int(images), rows)


@dataclass(frozen=True)
class FurtherScores:
    """Scores beside IoU and its kin, such as those of objects and surfaces: a value for each candidate, None where it has none."""

    title: str
    rows: list[tuple[str, list[float | None]]]


_FURTHER = (("instance", "Objects"), ("surface", "Surfaces"))
_NO_SCORES = ("images", "units", "millimetres", "tolerance", "class", "interval")
_WORDS = {
    "hd95": "95 % Hausdorff distance",
    "assd": "average surface distance",
    "nsd": "surface Dice",
    "recall": "mask recall",
    "ap_small": "mask AP of small objects",
    "ap_medium": "mask AP of medium objects",
    "ap_large": "mask AP of large objects",
    "true": "true objects",
    "found": "objects found",
    **OF_OBJECTS,
}


def further_scores(metrics: Sequence[Mapping[str, Any]]) -> list[FurtherScores]:
    """The tables of `test.instance` and `test.surface` of each metrics.json, without single classes; none where nobody has such
    scores."""
    tests = [section(one, "test") for one in metrics]
    tables = []
    for key, title in _FURTHER:
        told = [dict(_leaves(section(test, key))) for test in tests]
        rows = [(name, [own.get(name) for own in told]) for name in dict.fromkeys(n for own in told for n in own)]
        tables += [FurtherScores(title, rows)] if rows else []
    return tables


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in content.items():
        if key in _NO_SCORES:
            continue
        name = f"{prefix} {_WORDS.get(key, key)}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        elif (number := _number(content, key)) is not None:
            yield name, number


@dataclass(frozen=True)
class CostRow:
    """What a model costs. ms, training_mib: of a training step. latency: p50 and p95 of an answer in ms, by `engine`, with `served` of
    requests to its Bento; serving_mib: the most memory of the process that answered."""

    name: str
    megabytes: float | None = None
    latency: tuple[float, float] | None = None
    engine: str | None = None
    served: bool = False
    serving_mib: float | None = None
    steps: int | None = None
    images_per_s: float | None = None
    ms: float | None = None
    training_mib: float | None = None


def costs(root: Path, names: list[str]) -> list[CostRow]:
    """A row for each candidate of which anything is known."""
    rows = []
    for name in names:
        metrics = read_section(root / "evaluation" / name / "metrics.json")
        training = read_section(root / "training" / name / "metrics.json")
        plan = read_section(root / "plans" / f"{name}.json")
        execution, model = section(plan, "execution"), section(metrics, "model")
        each, members = _number(section(plan, "recipe"), "steps"), _number(section(plan, "folds"), "count") or 1
        steps = each * members if each else _number(training, "step")
        cost = section(metrics, "cost")
        half, most = _number(cost, "p50_ms"), _number(cost, "p95_ms")
        row = CostRow(
            name,
            megabytes=_number(model, "megabytes"),
            latency=None if half is None or most is None else (half, most),
            engine=cost.get("engine"),
            serving_mib=_number(cost, "peak_memory_mib"),
            steps=None if steps is None else int(steps),
            images_per_s=_number(section(training, "train"), "images_per_s"),
            ms=_number(execution, "ms_per_step"),
            training_mib=_number(execution, "peak_memory_mib"),
        )
        if any(value is not None for value in (row.megabytes, row.latency, row.images_per_s, row.ms)):
            rows.append(row)
    return rows


@dataclass(frozen=True)
class TimedPart:
    """A part of a training step, and the share of the time that goes into it."""

    part: str
    share: float
    ms: float | None


def bottleneck(path: Path) -> list[TimedPart]:
    """Of training/NAME/bottleneck.json, [{part, share, ms}], the longest first; empty where there is none."""
    if not path.is_file():
        return []
    content = read_json(path)
    rows = content if isinstance(content, list) else section(content).get("parts", [])
    told = [section(row) for row in rows if isinstance(row, Mapping)]
    parts = [
        TimedPart(str(row["part"]), share, _number(row, "ms"))
        for row in told
        if "part" in row and (share := _number(row, "share")) is not None
    ]
    return sorted(parts, key=lambda part: -part.share)


@dataclass(frozen=True)
class TimedSetting:
    """A setting that the plan timed. ms: of a step, None where it was not timed; share: of the slowest; difference: of the loss."""

    name: str
    ms: float | None
    share: float
    difference: float | None
    verdict: str
    chosen: bool


@dataclass(frozen=True)
class PlanView:
    """What the report shows of a plan."""

    timings: list[TimedSetting]
    reasons: dict[str, Any]
    machine: dict[str, Any]
    parts: list[TimedPart]


def plan_views(root: Path, names: list[str]) -> dict[str, PlanView]:
    """The plans that there are, by candidate."""
    return dict(_plan_views(root, names))


def _plan_views(root: Path, names: list[str]) -> Iterator[tuple[str, PlanView]]:
    for name in names:
        path = root / "plans" / f"{name}.json"
        if not path.is_file():
            continue
        plan = read_section(path)
        execution = section(plan, "execution")
        timed = [
            t for t in execution.get("timings") or [] if isinstance(t, dict) and isinstance(t.get("setting"), dict)
        ]
        slowest = max((t["ms_per_step"] for t in timed if t.get("ms_per_step")), default=1.0)
        rows = [
            TimedSetting(
                _setting(t["setting"]),
                _number(t, "ms_per_step"),
                (t.get("ms_per_step") or 0) / slowest,
                _number(t, "loss_difference"),
                str(t.get("verdict", "")),
                t["setting"] == execution.get("setting"),
            )
            for t in timed
        ]
        parts = bottleneck(root / "training" / name / "bottleneck.json")
        yield name, PlanView(rows, section(plan, "reasons"), section(execution, "machine"), parts)


def _setting(setting: dict[str, Any]) -> str:
    """{precision: bf16, channels_last: true, compile: false} -> "bf16, channels-last"."""
    flags = [key.replace("_", "-") for key, value in setting.items() if value is True]
    return ", ".join([str(v) for v in setting.values() if isinstance(v, str)] + flags)
