"""reports/report.html: what came out and why, as one page that needs no network, no server and no script to be read."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import Params
from segpipe.evaluation.charts import Axis, axis, curve_charts, heat_cells, worst_confusions
from segpipe.evaluation.gallery import Gallery, Picture, has_background
from segpipe.evaluation.gates import describe
from segpipe.evaluation.scores import Scores, read_scores
from segpipe.evaluation.selection import Bounds, Selection
from segpipe.files import read_bytes, read_json, write_text
from segpipe.metrics import MAIN_METRIC, RATIOS, per_class

if TYPE_CHECKING:
    from segpipe.data.manifest import Fingerprint

TEMPLATES = Path(__file__).parent / "templates"
LAYERS = ("image", "truth", "prediction", "errors")

MAX_IMAGE_BYTES = 6 << 20
"""Base64 of the embedded pictures; with everything else the page stays under 8 MB."""

MAX_MATRIX = 40
"""Classes of the largest confusion matrix that is drawn; of more, only the worst confusions are listed."""


def write_report(root: Path, selection: Selection, params: Params, fingerprint: Fingerprint, out: Path) -> None:
    """Write the page about a selection. Reads evaluation/, training/ and plans/ of the workspace, whatever of it is there.

    The same inputs give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from segpipe.data.pages import TOKENS

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": _score, "percent": _percent, "words": describe}
    page = environment.get_template("report.html.j2").render(
        **_context(root, selection, params, fingerprint),
        css=TOKENS.read_text() + (TEMPLATES / "report.css").read_text(),
        js=(TEMPLATES / "report.js").read_text(),
    )  # fmt: skip
    write_text(out, page)


def _context(root: Path, selection: Selection, params: Params, fingerprint: Fingerprint) -> dict[str, Any]:
    """Everything that the template shows."""
    names = [entry.candidate for entry in selection.ranking]
    shown = selection.winner or names[0]
    scores = {name: read_scores(root / "evaluation" / name / "per_image.parquet") for name in names}
    folder = root / "evaluation" / shown / "gallery"
    gallery = Gallery.read(folder)
    embedded = embed(folder, gallery.pictures, MAX_IMAGE_BYTES)
    counts = scores[shown].confusion
    return {
        "selection": selection, "params": params, "fingerprint": fingerprint, "shown": shown, "main": MAIN_METRIC,
        "models": _models(selection), "axis": axis, "scale": _scale(selection, params),
        "class_rows": _class_rows(scores, shown, fingerprint), "colors": [_hex(c.color) for c in fingerprint.classes.classes],
        "cells": heat_cells(counts) if len(counts) <= MAX_MATRIX else [],
        "confusions": worst_confusions(counts, 5), "totals": counts.sum(1).tolist(),
        "charts": curve_charts(root, names, 340, 190, 44),
        "plans": {name: plan for name in names if (plan := _plan(root / "plans" / f"{name}.json"))},
        "gallery": embedded, "left_out": len(gallery.pictures) - len(embedded), "legend": gallery.legend, "layers": LAYERS,
        "drawn_classes": list(range(1 if has_background(fingerprint.classes) else 0, len(fingerprint.classes))),
    }  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A row of the ranking: a candidate, or what serves now."""

    name: str
    kind: str
    role: str
    place: int
    val: float | None
    test: dict[str, float | None]
    interval: Bounds | None


def _models(selection: Selection) -> list[Model]:
    roles = {selection.winner: "winner"}
    best_classical = next((e.candidate for e in selection.ranking if e.kind == "classical"), None)
    roles |= {best_classical: "baseline"} if best_classical else {}
    rows = [
        Model(e.candidate, f"{e.family}, {e.kind}", roles.get(e.candidate, ""), place, e.val, e.test, e.interval)
        for place, e in enumerate(selection.ranking)
    ]
    champion = selection.champion
    if champion:
        rows.append(
            Model(champion.version, "serving now", "champion", len(rows), None, champion.test, champion.interval)
        )
    return rows


def _scale(selection: Selection, params: Params) -> Axis:
    """The axis on which all intervals of the main metric are drawn."""
    values = [v for m in _models(selection) for v in (m.test.get(MAIN_METRIC), *_ends(m.interval)) if v is not None]
    floor = params.gates.floor
    if floor and floor.metric == MAIN_METRIC:
        values.append(floor.at_least)
    return axis(values, 6, 294, least=0.0)


def _ends(bounds: Bounds | None) -> tuple[float, ...]:
    return (bounds.low, bounds.high) if bounds else ()


@dataclass(frozen=True)
class ClassRow:
    """A class's scores with the candidate that is shown (boundary: boundary IoU), its IoU with the others, and its share of the
    test pixels."""

    name: str
    color: str
    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary: float | None
    others: list[tuple[str, float]]
    share: float


def _class_rows(scores: dict[str, Scores], shown: str, fingerprint: Fingerprint) -> list[ClassRow]:
    total = {name: found.tally.sum(0) for name, found in scores.items()}
    values = {ratio: per_class(ratio, total[shown]) for ratio in RATIOS}
    others = {name: per_class("iou", tally) for name, tally in total.items() if name != shown}
    pixels = total[shown][1]
    bands = scores[shown].boundary_iou()
    return [
        ClassRow(
            spec.name, _hex(spec.color), **{ratio: _known(values[ratio][i]) for ratio in RATIOS},
            boundary=bands.get(f"boundary_iou.class.{spec.name}"),
            others=[(n, float(v[i])) for n, v in others.items() if not np.isnan(v[i])],
            share=float(pixels[i] / max(pixels.sum(), 1)),
        )
        for i, spec in enumerate(fingerprint.classes.classes)
    ]  # fmt: skip


@dataclass(frozen=True)
class Embedded:
    """A picture of the gallery with its layers as data URIs."""

    picture: Picture
    layers: dict[str, str]


def embed(folder: Path, pictures: Sequence[Picture], max_bytes: int) -> list[Embedded]:
    """The pictures as WebP data URIs, taking worst, typical and best in turn for as long as `max_bytes` lasts."""
    turns = {kind: [p for p in pictures if p.kind == kind] for kind in ("worst", "typical", "best")}
    in_turn = [group[i] for i in range(max(map(len, turns.values()))) for group in turns.values() if i < len(group)]
    kept: dict[str, Embedded] = {}
    left = max_bytes
    for picture in in_turn:
        layers = {layer: _webp_uri(folder / getattr(picture, layer)) for layer in LAYERS}
        left -= sum(map(len, layers.values()))
        if left < 0:
            break
        kept[picture.key] = Embedded(picture, layers)
    return [kept[p.key] for p in pictures if p.key in kept]


def _webp_uri(path: Path) -> str:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(read_bytes(path, 1 << 24), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None, f"{path} was written by the evaluation"
    _, content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 82])
    return "data:image/webp;base64," + base64.b64encode(content.tobytes()).decode()


def _plan(path: Path) -> dict[str, Any] | None:
    """What the report shows of a plan; a plan of another shape shows less."""
    if not path.exists():
        return None
    plan = read_json(path)
    execution = plan.get("execution") or {}
    timed = [t for t in execution.get("timings", []) if isinstance(t, dict) and isinstance(t.get("setting"), dict)]
    slowest = max((t["ms_per_step"] for t in timed if t.get("ms_per_step")), default=1.0)
    rows = [
        {
            "name": _setting(t["setting"]), "ms": t.get("ms_per_step"), "share": (t.get("ms_per_step") or 0) / slowest,
            "difference": t.get("loss_difference"), "verdict": str(t.get("verdict", "")),
            "chosen": t["setting"] == execution.get("setting"),
        }
        for t in timed
    ]  # fmt: skip
    return {"timings": rows, "reasons": plan.get("reasons") or {}, "machine": execution.get("machine") or {}}


def _setting(setting: dict[str, Any]) -> str:
    """{precision: bf16, channels_last: true, compile: false} -> "bf16, channels-last"."""
    flags = [key.replace("_", "-") for key, value in setting.items() if value is True]
    return ", ".join([str(v) for v in setting.values() if isinstance(v, str)] + flags)


def _score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
