"""reports/validation/: findings.json for programs, gx.json for those who know Great Expectations, index.html for people."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import DataParams, ValidateParams
from segpipe.data.dataset import CLASSES_FILE, read_classes
from segpipe.data.drawing import Picture, thumbnail
from segpipe.data.images import read_image, read_mask
from segpipe.drift.comparison import Drift
from segpipe.errors import SegpipeError
from segpipe.files import write_json, write_text
from segpipe.pages.components.drift_chart import HEIGHT, WIDTH, draw_drift
from segpipe.pages.data_uris import mask_uri, photo_uri
from segpipe.pages.environment import render
from segpipe.samples import UNKNOWN, ClassTable
from segpipe.validation.checks import CHECKS
from segpipe.validation.findings import SEVERITIES, Finding, blocking_findings, quarantined_files

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 12
"""Findings of one check that the page shows, with pictures: it stays small whatever the data."""
_LISTED = 200
"""Files left out that the page lists; findings.json has all."""
_CHARTS = 24
_EDGE = 240
_UNKNOWN_COLOR = (255, 0, 255)


def write_validation(
    out: Path,
    findings: list[Finding],
    gx_result: dict[str, Any],
    frame: pd.DataFrame,
    data_dir: Path,
    params: ValidateParams = ValidateParams(),  # type: ignore[call-arg]
    limits: DataParams = DataParams(),  # type: ignore[call-arg]
    drifts: Sequence[Drift] = (),
) -> None:
    """Write the verdict.

    findings.json: {"passed": nothing stops the pipeline, "quarantined": [files that are left out], "findings": [...], "drift": [...]}.
    """
    left_out = quarantined_files(findings) if params.quarantine else []
    stops = blocking_findings(findings, params)
    told = {
        "passed": not stops,
        "quarantined": left_out,
        "findings": [f.model_dump() for f in findings],
        "drift": [d.model_dump(exclude={"edges", "shares_before", "shares_now"}) for d in drifts],
    }
    write_json(out / "findings.json", told)
    write_json(out / "gx.json", gx_result)
    checks = {check.name: check for check in CHECKS}
    on = {result["check"]: result for result in gx_result["results"]}
    pictures = _Pictures(frame, data_dir, limits)
    page = render(
        Path(__file__).parent / "templates" / "findings.html",
        passed=not stops,
        stops=len(stops),
        images=len(frame),
        counts={severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
        failed=[
            _failed(checks[name].title, list(group), pictures)
            for name, group in groupby(findings, lambda f: f.expectation)
        ],
        sound=[
            {"name": name, "title": checks[name].title, "severity": r["severity"], "expectation": r["expectation"]}
            for name, r in on.items()
            if r["success"]
        ],
        off=[check for check in CHECKS if check.name not in on],
        left_out=_left_out(left_out, findings),
        listed=_LISTED,
        charts=[draw_drift(drift) for drift in drifts[:_CHARTS]],
        drifts=drifts,
        width=WIDTH,
        height=HEIGHT,
    )
    write_text(out / "index.html", page)


def _failed(title: str, findings: list[Finding], pictures: _Pictures) -> dict[str, Any]:
    """One check's section of the page."""
    shown = [f.model_dump() | {"looks": pictures.of_finding(f)} for f in findings[:_SHOWN]]
    return {
        "name": findings[0].expectation,
        "title": title,
        "severity": findings[0].severity,
        "count": len(findings),
        "findings": shown,
    }


def _left_out(files: list[str], findings: list[Finding]) -> list[tuple[str, str]]:
    """(file, what is wrong with it) of each file that is left out."""
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.severity == "error" and finding.file is not None:
            reasons.setdefault(finding.file, finding.found)
    return [(file, reasons[file]) for file in files]


class _Pictures:
    """Small pictures of the files of a row: the image (a volume's middle slice), and its mask in the classes' colours."""

    def __init__(self, frame: pd.DataFrame, data_dir: Path, limits: DataParams) -> None:
        self._masks = dict(zip(frame["path"], frame["mask_path"], strict=True))
        self._data_dir, self._limits = data_dir, limits
        self._classes = read_classes(data_dir / CLASSES_FILE) if (data_dir / CLASSES_FILE).exists() else None
        self._drawn: dict[str, list[dict[str, str]]] = {}

    def of_finding(self, finding: Finding) -> list[dict[str, str]]:
        """The pictures of its file; where it is about two, both images side by side, and then both masks."""
        files = [file for file in (finding.file, finding.other) if file is not None]
        return [look for looks in zip_longest(*map(self.of, files)) for look in looks if look]

    def of(self, file: str) -> list[dict[str, str]]:
        """What can be shown of a file's row; a file that cannot be read is told as such by its own finding."""
        if file not in self._drawn:
            self._drawn[file] = []
            with contextlib.suppress(SegpipeError):
                self._draw(file, self._drawn[file])
        return self._drawn[file]

    def _draw(self, file: str, looks: list[dict[str, str]]) -> None:
        image = read_image(self._data_dir / file, self._limits)
        image = image[len(image) // 2] if image.ndim == 4 else image
        looks.append({"uri": photo_uri(thumbnail(image, _EDGE)), "alt": f"image {file}", "caption": file})
        mask = self._masks.get(file)
        if self._classes and isinstance(mask, str):
            values = read_mask(self._data_dir / mask, self._limits)
            values = values[len(values) // 2] if values.ndim == 3 else values
            looks.append({"uri": mask_uri(_draw_mask(values, self._classes)), "alt": f"mask {mask}", "caption": mask})


def _draw_mask(values: np.ndarray, classes: ClassTable) -> Picture:
    """File values (H, W) in their classes' colours, no larger than a thumbnail; unknown ones stand out, however few they are."""
    labels = classes.encode(values)
    colors = np.full((256, 3), 128, np.uint8)
    colors[: len(classes.palette)] = classes.palette
    colors[UNKNOWN] = _UNKNOWN_COLOR
    step = max(1, -(-max(labels.shape) // _EDGE))
    drawn = colors[labels[::step, ::step]]
    for y, x in np.argwhere(labels == UNKNOWN)[:2000] // step:
        drawn[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = _UNKNOWN_COLOR
    return drawn
