"""Validation of data/ before the stages have run, for the data page."""

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
    """Validate a manifest as the stage `validate` does, without writing anything.

    Args:
        root: the workspace, with its parameters and the reference for drift.
        manifest: of the images that are in data/ now.
        classes: of the masks.

    Returns:
        The findings; None if no image can be trained on.
    """
    if not usable(manifest).any():
        return None
    fingerprint = make_fingerprint(manifest, classes)
    reference = Reference.read(root / REFERENCE_FILE)
    verdict = validate_manifest(
        manifest, fingerprint, load_params(root).validation, reference, choose_patch(fingerprint)
    )
    return verdict.findings
