"""The result of validation: findings.json for programs, gx.json with Great Expectations' own results, and the page index.html."""

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
from segpipe.data.images import read_aligned_mask, read_image
from segpipe.drift.comparison import Drift
from segpipe.errors import SegpipeError
from segpipe.files import write_json, write_text
from segpipe.pages.components.drift_chart import HEIGHT, WIDTH, draw_drift
from segpipe.pages.data_uris import mask_uri, photo_uri
from segpipe.pages.environment import render
from segpipe.samples import UNKNOWN, ClassTable
from segpipe.validation.checks import CHECKS
from segpipe.validation.findings import SEVERITIES, Finding, FindingsFile, blocking_findings, quarantined_files

if TYPE_CHECKING:
    import pandas as pd

_MAX_FINDINGS = 12
"""Findings of one check that the page shows, with pictures, so that the page stays small."""
_MAX_QUARANTINED = 200
"""Quarantined files that the page lists; findings.json has all."""
_MAX_CHARTS = 24
_EDGE = 240
"""Longest edge of a picture, in pixels."""
_UNKNOWN_COLOR = (255, 0, 255)
_MAX_MARKS = 2000
"""Pixels with unknown values that are enlarged in the picture of a mask."""


def write_validation(
    out: Path,
    findings: list[Finding],
    gx_result: dict[str, Any],
    frame: pd.DataFrame,
    data_dir: Path,
    params: ValidateParams = ValidateParams(),
    limits: DataParams = DataParams(),
    drifts: Sequence[Drift] = (),
) -> None:
    """Write findings.json (`segpipe.validation.findings.FindingsFile`), gx.json and index.html.

    Args:
        out: The folder to write to.
        findings: What was found, the worst first, the findings of one check together.
        gx_result: The results of Great Expectations.
        frame: The manifest.
        data_dir: The data, for the pictures of the page.
        params: Which findings stop the pipeline, and whether files are quarantined.
        limits: Limits on what is decoded.
        drifts: How the data differ from those of the model in production.
    """
    left_out = quarantined_files(findings) if params.quarantine else []
    passed = not blocking_findings(findings, params)
    summaries = [drift.summary for drift in drifts]
    FindingsFile(passed=passed, quarantined=left_out, findings=findings, drift=summaries).write(out / "findings.json")
    write_json(out / "gx.json", gx_result)
    titles = {check.name: check.title for check in CHECKS}
    results = {result["check"]: result for result in gx_result["results"]}
    pictures = _Pictures(frame, data_dir, limits)
    page = render(
        "validation.html.j2",
        passed=passed,
        images=len(frame),
        counts={severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
        failed=[
            _failed(titles[name], list(group), pictures) for name, group in groupby(findings, lambda f: f.expectation)
        ],
        fulfilled=[
            {"name": name, "title": titles[name], "severity": r["severity"], "expectation": r["expectation"]}
            for name, r in results.items()
            if r["success"]
        ],
        disabled=[check for check in CHECKS if check.name not in results],
        left_out=_reasons(left_out, findings),
        max_left_out=_MAX_QUARANTINED,
        charts=[draw_drift(drift) for drift in drifts[:_MAX_CHARTS]],
        drifts=drifts,
        width=WIDTH,
        height=HEIGHT,
    )
    write_text(out / "index.html", page)


def _failed(title: str, findings: list[Finding], pictures: _Pictures) -> dict[str, Any]:
    """Collect what the page shows of one check that is not fulfilled."""
    shown = [f.model_dump() | {"pictures": pictures.of_finding(f)} for f in findings[:_MAX_FINDINGS]]
    return {
        "name": findings[0].expectation,
        "title": title,
        "severity": findings[0].severity,
        "count": len(findings),
        "findings": shown,
    }


def _reasons(files: list[str], findings: list[Finding]) -> list[tuple[str, str]]:
    """Return (file, what is wrong with it) for each quarantined file."""
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.severity == "error" and finding.file is not None:
            reasons.setdefault(finding.file, finding.found)
    return [(file, reasons[file]) for file in files]


class _Pictures:
    """Small pictures of images (of a volume, its middle slice) and of their masks in the colours of the classes."""

    def __init__(self, frame: pd.DataFrame, data_dir: Path, limits: DataParams) -> None:
        self._masks = dict(zip(frame["path"], frame["mask_path"], strict=True))
        self._data_dir, self._limits = data_dir, limits
        self._classes = read_classes(data_dir / CLASSES_FILE) if (data_dir / CLASSES_FILE).exists() else None
        self._cache: dict[str, list[dict[str, str]]] = {}

    def of_finding(self, finding: Finding) -> list[dict[str, str]]:
        """Return the pictures of the file of a finding; of two files, first both images, then both masks."""
        files = [file for file in (finding.file, finding.other) if file is not None]
        return [picture for pair in zip_longest(*map(self.of_file, files)) for picture in pair if picture]

    def of_file(self, file: str) -> list[dict[str, str]]:
        """Return the pictures of an image and its mask. Those that cannot be read are left out: they have a finding of their own."""
        if file not in self._cache:
            self._cache[file] = []
            with contextlib.suppress(SegpipeError):
                self._draw(file, self._cache[file])
        return self._cache[file]

    def _draw(self, file: str, pictures: list[dict[str, str]]) -> None:
        image = read_image(self._data_dir / file, self._limits)
        image = image[len(image) // 2] if image.ndim == 4 else image
        pictures.append({"uri": photo_uri(thumbnail(image, _EDGE)), "alt": f"image {file}", "caption": file})
        mask = self._masks.get(file)
        if self._classes and isinstance(mask, str):
            values = read_aligned_mask(self._data_dir / mask, self._data_dir / file, self._limits)
            values = values[len(values) // 2] if values.ndim == 3 else values
            uri = mask_uri(_draw_mask(values, self._classes))
            pictures.append({"uri": uri, "alt": f"mask {mask}", "caption": mask})


def _draw_mask(values: np.ndarray, classes: ClassTable) -> Picture:
    """Draw a mask, (H, W) file values, in the colours of its classes at the size of a thumbnail; unknown values are enlarged."""
    labels = classes.encode(values)
    colors = np.full((256, 3), 128, np.uint8)
    colors[: len(classes.palette)] = classes.palette
    colors[UNKNOWN] = _UNKNOWN_COLOR
    step = max(1, -(-max(labels.shape) // _EDGE))
    picture = colors[labels[::step, ::step]]
    for y, x in np.argwhere(labels == UNKNOWN)[:_MAX_MARKS] // step:
        picture[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = _UNKNOWN_COLOR
    return picture
