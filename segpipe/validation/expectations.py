"""Great Expectations over the manifest: every check of the table, on every row, with the offenders by name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from segpipe.config import ValidateParams
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.manifest.table import usable
from segpipe.drift.comparison import Drift, compare
from segpipe.drift.reference import Reference
from segpipe.validation.checks import Check, chosen_checks
from segpipe.validation.findings import SEVERITIES, Finding, Severity
from segpipe.validation.frames import About, class_frame, drift_frame, group_frame, image_frame, split_frame

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import AbstractDataContext

__all__ = ["Finding", "Verdict", "quarantined", "stopping", "validate_manifest"]


class Verdict(NamedTuple):
    """What became of a manifest; the same for the same manifest: times and run ids are left out."""

    findings: list[Finding]
    """Errors first."""
    gx_result: dict[str, Any]
    """What Great Expectations said, as JSON data."""
    drifts: list[Drift]
    """By quantity, where there was something to compare with."""


def validate_manifest(
    frame: pd.DataFrame,
    fingerprint: Fingerprint,
    params: ValidateParams,
    before: Reference | None = None,
    crop: int = 256,
) -> Verdict:
    """Hold a manifest against the checks. before: the data of the model in production. crop: edge of a training crop in pixels.

    With `params.quarantine`, classes, splits, groups and drift are judged as they are without the images that are left out.
    """
    chosen = chosen_checks(params)
    context = _make_context()
    results: dict[str, dict[str, Any]] = {}
    findings: list[Finding] = []

    def judge(about: About, rows: pd.DataFrame) -> None:
        mine = [(check, severity) for check, severity in chosen if check.about == about]
        results.update(_run(context, about, rows, [check for check, _ in mine], params))
        for check, severity in mine:
            findings.extend(_findings(check, severity, rows, results[check.name], params))

    judge("image", image_frame(frame, fingerprint, params, crop))
    rest = frame[~frame["path"].isin(quarantined(findings))] if params.quarantine else frame
    judge("class", class_frame(rest, fingerprint.classes))
    judge("split", split_frame(rest, params.min_images))
    judge("group", group_frame(rest))
    drifts: list[Drift] = []
    if before is not None and usable(rest).any():
        drifts = compare(make_reference(rest, fingerprint.classes), before, params)
    judge("drift", drift_frame(drifts))
    order = [check.name for check, _ in chosen]
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), order.index(finding.expectation)))
    gx_result = {
        "success": not any(finding.severity == "error" for finding in findings),
        "results": [{"check": check.name, "severity": severity, **results[check.name]} for check, severity in chosen],
    }
    return Verdict(findings, gx_result, drifts)


def quarantined(findings: Iterable[Finding]) -> list[str]:
    """The files that have an error of their own, in name order: what `validate.quarantine` leaves out.

    Of images that stand there several times with different masks, or in several splits, all are: nothing tells the right one.
    """
    return sorted({f.file for f in findings if f.severity == "error" and f.file is not None})


def stopping(findings: Iterable[Finding], params: ValidateParams) -> list[Finding]:
    """The findings that nothing goes on with: errors, less those of files that are left out."""
    return [f for f in findings if f.severity == "error" and not (params.quarantine and f.file is not None)]


def _findings(
    check: Check, severity: Severity, rows: pd.DataFrame, result: dict[str, Any], params: ValidateParams
) -> list[Finding]:
    offenders = {row["subject"] for row in result["result"].get("unexpected_index_list") or ()}
    failed = rows[rows["subject"].isin(offenders)].to_dict("records")
    return check.findings(failed, len(rows), severity, params)


def _make_context() -> AbstractDataContext:
    """Great Expectations in memory, quiet, without a word to the outside."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False, "profilers": False}
    return context


def _run(
    context: AbstractDataContext, about: About, rows: pd.DataFrame, checks: list[Check], params: ValidateParams
) -> dict[str, dict[str, Any]]:
    """One suite over one frame; the result of each check, as JSON data, by its name."""
    if not checks:
        return {}
    import great_expectations as gx

    source = context.data_sources.add_pandas(about)
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(about))
    for check in checks:
        expectation = getattr(gx.expectations, check.expectation)
        suite.add_expectation(expectation(**check.arguments_for(params), meta={"check": check.name}))
    definition = gx.ValidationDefinition(name=about, data=batch, suite=suite)
    checkpoint = gx.Checkpoint(
        name=about,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["subject"]},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
    (run,) = outcome.run_results.values()
    said = {r["expectation_config"]["meta"]["check"]: r for r in (result.to_json_dict() for result in run.results)}
    return {check.name: _plain(check, said[check.name], params) for check in checks}


def _plain(check: Check, result: dict[str, Any], params: ValidateParams) -> dict[str, Any]:
    """A result without what changes from run to run."""
    trouble = result["exception_info"]
    assert not trouble.get("raised_exception"), f"{check.name}: {trouble.get('exception_message')}"
    return {
        "expectation": result["expectation_config"]["type"],
        "arguments": check.arguments_for(params),
        "success": result["success"],
        "result": {key: value for key, value in result["result"].items() if key != "unexpected_index_query"},
    }
