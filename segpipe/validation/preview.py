"""What validation says of data/ as it is now, for those who look at it before the stages have run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import load_params
from segpipe.data.manifest.fingerprint import choose_patch, make_fingerprint
from segpipe.data.manifest.table import usable
from segpipe.drift.reference import REFERENCE_FILE, Reference
from segpipe.samples import ClassTable
from segpipe.validation.expectations import validate_manifest
from segpipe.validation.findings import Finding

if TYPE_CHECKING:
    import pandas as pd


def judge_manifest(root: Path, manifest: pd.DataFrame, classes: ClassTable) -> list[Finding] | None:
    """The findings on a manifest, as the stage `validate` would write them; None where no image can be trained on."""
    if not usable(manifest).any():
        return None
    fingerprint = make_fingerprint(manifest, classes)
    before = Reference.read(root / REFERENCE_FILE)
    verdict = validate_manifest(manifest, fingerprint, load_params(root).validation, before, choose_patch(fingerprint))
    return verdict.findings
