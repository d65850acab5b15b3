"""The findings of a validation, and their file: reports/validation/findings.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.config import ValidateParams
from segpipe.drift.comparison import DriftSummary
from segpipe.errors import DataError
from segpipe.files import write_json
from segpipe.json_models import read_model

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The most severe first."""


class Finding(BaseModel):
    """One failure of a check: what was found, how severe it is, and what to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    expectation: str
    """The name of the check."""
    severity: Severity
    file: str | None
    """Relative to data/; None if the finding is about the whole dataset."""
    other: str | None = None
    """A second file that the finding is about, such as the copy of an image."""
    found: str
    expected: str
    fix: str


class FindingsFile(BaseModel):
    """The content of findings.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    passed: bool
    """True if the pipeline may continue: there is no error, or all errors are about files that quarantine leaves out."""
    quarantined: list[str] = []
    """Files that are left out, relative to data/."""
    findings: list[Finding]
    """Errors first."""
    drift: list[DriftSummary] = []
    """The change of each quantity since the model in production; empty if there is none."""

    @classmethod
    def read(cls, path: Path) -> FindingsFile:
        """Read a findings.json.

        Raises:
            DataError: the file is missing or not valid.
        """
        return read_model(
            path, cls, error_type=DataError, kind="list of findings", fix="`segpipe validate` writes it again"
        )

    def write(self, path: Path) -> None:
        """Write the findings as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


def quarantined_files(findings: Iterable[Finding]) -> list[str]:
    """Return the files that have an error of their own, sorted by name: those that `validate.quarantine` leaves out.

    If one image occurs several times, with different masks or in several splits, all copies are left out: nothing says which one is
    right.
    """
    return sorted({f.file for f in findings if f.severity == "error" and f.file is not None})


def blocking_findings(findings: Iterable[Finding], params: ValidateParams) -> list[Finding]:
    """Return the findings that stop the pipeline: errors, except those about files that quarantine leaves out.

    Args:
        findings: all findings of a validation.
        params: the settings; `quarantine` says whether files with errors are left out.
    """
    return [f for f in findings if f.severity == "error" and not (params.quarantine and f.file is not None)]
