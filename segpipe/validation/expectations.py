"""Great Expectations over the manifest: every check of the table, on every row, with the offenders by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from segpipe.config import ValidateParams
from segpipe.data.manifest import Fingerprint
from segpipe.validation.checks import Check, Finding, Severity, chosen_checks
from segpipe.validation.frames import About, make_frames

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import AbstractDataContext

__all__ = ["Finding", "validate_manifest"]


def validate_manifest(
    frame: pd.DataFrame, fingerprint: Fingerprint, params: ValidateParams
) -> tuple[list[Finding], dict[str, Any]]:
    """Hold a manifest against the checks. Returns the findings, errors first, and what Great Expectations said, as JSON data.

    Both are the same for the same manifest: times and run ids are left out.
    """
    frames = make_frames(frame, fingerprint, params.min_images)
    chosen = chosen_checks(params)
    context = _make_context()
    results = {
        check.name: result
        for about, rows in frames.items()
        for check, result in _run(context, about, rows, [check for check, _ in chosen if check.about == about])
    }
    findings = [
        finding for check, severity in chosen for finding in _findings(check, severity, frames, results[check.name])
    ]
    findings.sort(key=lambda finding: finding.severity)  # stable: the order of the table and of the rows stays
    gx_result = {
        "success": not any(finding.severity == "error" for finding in findings),
        "results": [{"check": check.name, "severity": severity, **results[check.name]} for check, severity in chosen],
    }
    return findings, gx_result


def _findings(
    check: Check, severity: Severity, frames: dict[About, pd.DataFrame], result: dict[str, Any]
) -> list[Finding]:
    offenders = {row["subject"] for row in result["result"].get("unexpected_index_list") or ()}
    rows = frames[check.about]
    return [check.finding(row, severity) for row in rows[rows["subject"].isin(offenders)].to_dict("records")]


def _make_context() -> AbstractDataContext:
    """Great Expectations in memory, quiet, without a word to the outside."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False, "profilers": False}
    return context


def _run(
    context: AbstractDataContext, about: About, rows: pd.DataFrame, checks: list[Check]
) -> list[tuple[Check, dict[str, Any]]]:
    """One suite over one frame; each check with its result as JSON data."""
    if not checks:
        return []
    import great_expectations as gx

    source = context.data_sources.add_pandas(about)
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(about))
    for check in checks:
        expectation = getattr(gx.expectations, check.expectation)
        suite.add_expectation(expectation(**check.arguments, meta={"check": check.name}))
    definition = gx.ValidationDefinition(name=about, data=batch, suite=suite)
    checkpoint = gx.Checkpoint(
        name=about,
        validation_definitions=[context.validation_definitions.add(definition)],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["subject"]},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
    (run,) = outcome.run_results.values()
    said = {r["expectation_config"]["meta"]["check"]: r for r in (result.to_json_dict() for result in run.results)}
    return [(check, _plain(check, said[check.name])) for check in checks]


def _plain(check: Check, result: dict[str, Any]) -> dict[str, Any]:
    """A result without what changes from run to run."""
    trouble = result["exception_info"]
    assert not trouble.get("raised_exception"), f"{check.name}: {trouble.get('exception_message')}"
    return {
        "expectation": result["expectation_config"]["type"],
        "arguments": dict(check.arguments),
        "success": result["success"],
        "result": {key: value for key, value in result["result"].items() if key != "unexpected_index_query"},
    }
