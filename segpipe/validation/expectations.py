"""Validation of a manifest with Great Expectations: every check of the table on every row, with the rows that failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from segpipe.config import ValidateParams
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.manifest.table import usable
from segpipe.drift.comparison import Drift, compare
from segpipe.drift.reference import Reference
from segpipe.validation.checks import Check, chosen_checks
from segpipe.validation.findings import SEVERITIES, Finding, Severity, quarantined_files
from segpipe.validation.frames import (
    About,
    class_frame,
    drift_frame,
    group_frame,
    image_frame,
    labels_frame,
    presence_frame,
    split_frame,
)

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import AbstractDataContext


class Verdict(NamedTuple):
    """The result of a validation; the same for the same manifest, without times and run ids."""

    findings: list[Finding]
    """Errors first."""
    gx_result: dict[str, Any]
    """The results of Great Expectations, as JSON data."""
    drifts: list[Drift]
    """The change of each quantity since the reference; empty without a reference."""


def validate_manifest(
    frame: pd.DataFrame,
    fingerprint: Fingerprint,
    params: ValidateParams,
    reference: Reference | None = None,
    crop: int = 256,
) -> Verdict:
    """Check a manifest.

    With `params.quarantine`, classes, splits, groups and drift are checked without the images that are left out.

    Args:
        frame: the manifest.
        fingerprint: the dataset in numbers.
        params: the thresholds.
        reference: numbers of the images that the model in production was trained on; None if there is none.
        crop: edge of a training crop in pixels, with which instances are compared.

    Raises:
        ConfigError: params.yaml names a check that does not exist.
    """
    checks = chosen_checks(params)
    context = _make_context()
    results: dict[str, dict[str, Any]] = {}
    findings: list[Finding] = []

    def judge(about: About, rows: pd.DataFrame) -> None:
        selected = [(check, severity) for check, severity in checks if check.about == about]
        results.update(_run(context, about, rows, [check for check, _ in selected], params))
        for check, severity in selected:
            findings.extend(_findings(check, severity, rows, results[check.name], params))

    judge("image", image_frame(frame, fingerprint, params, crop))
    rest = frame[~frame["path"].isin(quarantined_files(findings))] if params.quarantine else frame
    judge("class", class_frame(rest, fingerprint.classes))
    judge("presence", presence_frame(rest, fingerprint.classes))
    judge("labels", labels_frame(rest, fingerprint.classes))
    judge("split", split_frame(rest, params.min_images))
    judge("group", group_frame(rest))
    drifts: list[Drift] = []
    if reference is not None and usable(rest).any():
        drifts = compare(make_reference(rest, fingerprint.classes), reference, params)
    judge("drift", drift_frame(drifts))
    order = [check.name for check, _ in checks]
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), order.index(finding.expectation)))
    gx_result = {
        "success": not any(finding.severity == "error" for finding in findings),
        "results": [{"check": check.name, "severity": severity, **results[check.name]} for check, severity in checks],
    }
    return Verdict(findings, gx_result, drifts)


def _findings(
    check: Check, severity: Severity, rows: pd.DataFrame, result: dict[str, Any], params: ValidateParams
) -> list[Finding]:
    subjects = {row["subject"] for row in result["result"].get("unexpected_index_list") or ()}
    failed = rows[rows["subject"].isin(subjects)].to_dict("records")
    return check.findings(failed, len(rows), severity, params)


def _make_context() -> AbstractDataContext:
    """Make a context of Great Expectations in memory, without progress bars and telemetry."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False, "profilers": False}
    return context


def _run(
    context: AbstractDataContext, about: About, rows: pd.DataFrame, checks: list[Check], params: ValidateParams
) -> dict[str, dict[str, Any]]:
    """Run the checks of one frame; return their results as JSON data, by name."""
    if not checks:
        return {}
    import great_expectations as gx

    asset = context.data_sources.add_pandas(about).add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    expectations = [
        getattr(gx.expectations, check.expectation)(**check.arguments_for(params), meta={"check": check.name})
        for check in checks
    ]
    # a checkpoint in the context would give the same results, and store each of its parts: a fifth of the time of a small manifest
    outcome = batch.validate(
        gx.ExpectationSuite(about, expectations=expectations),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["subject"]},
    )
    by_check = {
        r["expectation_config"]["meta"]["check"]: r for r in (result.to_json_dict() for result in outcome.results)
    }
    return {check.name: _reproducible(check, by_check[check.name], params) for check in checks}


def _reproducible(check: Check, result: dict[str, Any], params: ValidateParams) -> dict[str, Any]:
    """Return a result without the parts that change from run to run."""
    exception = result["exception_info"]
    assert not exception.get("raised_exception"), f"{check.name}: {exception.get('exception_message')}"
    return {
        "expectation": result["expectation_config"]["type"],
        "arguments": check.arguments_for(params),
        "success": result["success"],
        "result": {key: value for key, value in result["result"].items() if key != "unexpected_index_query"},
    }
