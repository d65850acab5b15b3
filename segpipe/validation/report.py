"""reports/validation/: findings.json for programs, gx.json for those who know Great Expectations, index.html for people."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.dataset import CLASSES_FILE, read_classes
from segpipe.data.drawing import Picture, thumbnail
from segpipe.data.images import read_image, read_mask
from segpipe.data.pages import drawing_uri, photo_uri, render
from segpipe.errors import SegpipeError
from segpipe.files import write_json, write_text
from segpipe.samples import UNKNOWN, ClassTable
from segpipe.validation.checks import CHECKS, Finding

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 12
"""Findings of one check that the page shows, with pictures: it stays small whatever the data."""
_EDGE = 168
_UNKNOWN_COLOR = (255, 0, 255)


def write_validation(
    out: Path, findings: list[Finding], gx_result: dict[str, Any], frame: pd.DataFrame, data_dir: Path
) -> None:
    """Write the verdict. findings.json: {"passed": no error among them, "findings": [...]}."""
    errors = sum(finding.severity == "error" for finding in findings)
    write_json(out / "findings.json", {"passed": errors == 0, "findings": [f.model_dump() for f in findings]})
    write_json(out / "gx.json", gx_result)
    checks = {check.name: check for check in CHECKS}
    on = {result["check"]: result for result in gx_result["results"]}
    pictures = _Pictures(frame, data_dir)
    failed = [
        {
            "name": name,
            "title": checks[name].title,
            "severity": group[0].severity,
            "count": len(group),
            "findings": [f.model_dump() | {"pictures": pictures.of(f.file)} for f in group[:_SHOWN]],
        }
        for name, group in ((name, list(group)) for name, group in groupby(findings, lambda f: f.expectation))
    ]
    sound = [
        {"name": name, "title": checks[name].title, "severity": r["severity"], "expectation": r["expectation"]}
        for name, r in on.items()
        if r["success"]
    ]
    page = render(
        Path(__file__).with_name("findings.html"),
        passed=errors == 0,
        images=len(frame),
        errors=errors,
        warnings=len(findings) - errors,
        failed=failed,
        sound=sound,
        off=[check for check in CHECKS if check.name not in on],
    )
    write_text(out / "index.html", page)


class _Pictures:
    """Small pictures of the files of a row: the image, and its mask in the classes' colours."""

    def __init__(self, frame: pd.DataFrame, data_dir: Path) -> None:
        self._masks = dict(zip(frame["path"], frame["mask_path"], strict=True))
        self._data_dir = data_dir
        self._limits = DataParams()  # type: ignore[call-arg]
        self._classes = read_classes(data_dir / CLASSES_FILE) if (data_dir / CLASSES_FILE).exists() else None

    def of(self, file: str | None) -> list[dict[str, str]]:
        """What can be shown of a file's row; nothing for a file that cannot be read, which the finding says already."""
        shown = []
        if file is None:
            return []
        try:
            shown.append(
                {
                    "uri": photo_uri(thumbnail(read_image(self._data_dir / file, self._limits), _EDGE)),
                    "alt": f"image {file}",
                }
            )
            mask = self._masks[file]
            if self._classes and isinstance(mask, str):
                values = read_mask(self._data_dir / mask, self._limits)
                shown.append({"uri": drawing_uri(_draw_mask(values, self._classes)), "alt": f"mask {mask}"})
        except SegpipeError:
            return shown
        return shown


def _draw_mask(values: np.ndarray, classes: ClassTable) -> Picture:
    """File values (H, W) in their classes' colours, no larger than a thumbnail; unknown ones stand out, however few they are."""
    labels = classes.encode(values)
    colors = np.full((256, 3), 128, np.uint8)
    colors[: len(classes)] = classes.colors
    colors[UNKNOWN] = _UNKNOWN_COLOR
    step = max(1, -(-max(labels.shape) // _EDGE))
    drawn = colors[labels[::step, ::step]]
    for y, x in np.argwhere(labels == UNKNOWN)[:2000] // step:
        drawn[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = _UNKNOWN_COLOR
    return drawn
