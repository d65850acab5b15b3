"""The stages of dvc.yaml as commands. `dvc repro` calls them, and a user may call them too."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Candidate, workspace_root

PLAN_EXAMPLE = "segpipe plan unet\nsegpipe plan unet --explain\nsegpipe plan unet --refresh"


def ingest() -> None:
    """Decode every image and mask once, and write the manifest: one row per image."""
    from segpipe import stages

    stages.ingest(workspace_root())


def validate() -> None:
    """Check with Great Expectations that the data are fit for training.

    Exit codes:
    - 0: the data passed
    - 3: the data failed; reports/validation/ lists the findings
    """
    from segpipe import stages

    stages.validate(workspace_root())


def prepare() -> None:
    """Write the decoded images of each split to memory-mapped shards."""
    from segpipe import stages

    stages.prepare(workspace_root())


def plan(
    candidate: Candidate,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain the existing plan instead of planning again.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure again, for example on another machine.")] = False,
) -> None:
    """Plan how a candidate is trained on this machine, partly by measurement, and write plans/CANDIDATE.json."""
    from segpipe import stages

    root = workspace_root()
    if not explain:
        with _recorded(root, "plan", candidate):
            stages.plan(root, candidate, refresh)
        return
    from segpipe.config import load_params
    from segpipe.errors import MissingError
    from segpipe.training.plan import Plan
    from segpipe.training.plan import explain as explain_plan
    from segpipe.training.settings_changes import changed_since
    from segpipe.workspace.paths import Paths

    settings = load_params(root).explicit_settings(candidate)
    path = Paths(root).plan(candidate)
    if not path.exists():
        raise MissingError("no plan yet", where=path, fix=f"segpipe run, or dvc repro plan@{candidate}")
    current = Plan.read(path)
    typer.echo(explain_plan(current))
    for change in changed_since(current, settings):
        typer.echo(f"note: {change}: segpipe plan {candidate}", err=True)


def train(candidate: Candidate) -> None:
    """Train a candidate as planned. A training that was interrupted continues from its last checkpoint."""
    from segpipe import stages

    root = workspace_root()
    with _recorded(root, "train", candidate):
        stages.train(root, candidate)


def _recorded(root: Path, stage: str, candidate: str) -> AbstractContextManager[None]:
    """Record in dvc.lock that a user or torchrun ran a stage, so that the next run does not repeat this expensive stage."""
    from segpipe.config import load_params
    from segpipe.progress import is_first_process
    from segpipe.workspace import pipeline

    load_params(root).candidate(candidate)  # checks the name here: its error is clearer than DVC's
    if "DVC_STAGE" in os.environ or not is_first_process():
        return nullcontext()
    return pipeline.record_manual_run(root, f"{stage}@{candidate}")


def evaluate(candidate: Candidate) -> None:
    """Score a candidate on the test split."""
    from segpipe import stages

    stages.evaluate(workspace_root(), candidate)


def select(
    today: Annotated[
        datetime | None,
        typer.Option(
            "--today", formats=["%Y-%m-%d"], help="The day on which waivers must be valid. Default: the current day."
        ),
    ] = None,
) -> None:
    """Rank the candidates, judge the winner by the gates, and write the report."""
    from segpipe import stages

    stages.select(workspace_root(), today.date() if today else None)


def export() -> None:
    """Export the winner as a bundle that can be served: ONNX graph, golden images, model card."""
    from segpipe import stages

    stages.export(workspace_root())
