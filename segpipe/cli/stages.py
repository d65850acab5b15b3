"""The stages of dvc.yaml as commands: `dvc repro` calls them; a user may, too."""

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
    """Decode every image and mask once and write a row about each."""
    from segpipe import stages

    stages.ingest(workspace_root())


def validate() -> None:
    """Hold the data against what training needs (Great Expectations); exit code 3 when they fail."""
    from segpipe import stages

    stages.validate(workspace_root())


def prepare() -> None:
    """Write the decoded images to memory-mapped shards, by split."""
    from segpipe import stages

    stages.prepare(workspace_root())


def plan(
    candidate: Candidate,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how it is trained now, and why; plan nothing.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure anew: this machine is another one.")] = False,
) -> None:
    """Choose and measure how a candidate is trained on this machine (plans/CANDIDATE.json)."""
    from segpipe import stages

    root = workspace_root()
    if not explain:
        with _noted(root, "plan", candidate):
            stages.plan(root, candidate, refresh)
        return
    from segpipe.config import load_params
    from segpipe.errors import MissingError
    from segpipe.training.plan import Plan
    from segpipe.training.plan import explain as in_words
    from segpipe.training.settings_changes import changed_since
    from segpipe.workspace.paths import Paths

    settings = load_params(root).set_for(candidate)
    path = Paths(root).plan(candidate)
    if not path.exists():
        raise MissingError("no plan yet", where=path, fix=f"segpipe run, or dvc repro plan@{candidate}")
    made = Plan.read(path)
    typer.echo(in_words(made))
    for change in changed_since(made, settings):
        typer.echo(f"note: {change}: segpipe plan {candidate}", err=True)


def train(candidate: Candidate) -> None:
    """Train a candidate as planned; a training that was killed goes on where it stood."""
    from segpipe import stages

    root = workspace_root()
    with _noted(root, "train", candidate):
        stages.train(root, candidate)


def _noted(root: Path, stage: str, candidate: str) -> AbstractContextManager[None]:
    """What was measured or took long is not done again by the next run because a user, or torchrun, did it and not DVC."""
    from segpipe.config import load_params
    from segpipe.progress import is_first_process
    from segpipe.workspace import pipeline

    load_params(root).candidate(candidate)  # says better than DVC what there is
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
        typer.Option("--today", formats=["%Y-%m-%d"], help="The day by which waivers are judged; by default this one."),
    ] = None,
) -> None:
    """Rank the candidates, judge the winner by the gates, write the report."""
    from segpipe import stages

    stages.select(workspace_root(), today.date() if today else None)


def export() -> None:
    """Turn the winner into a bundle that serves: ONNX, golden images, model card."""
    from segpipe import stages

    stages.export(workspace_root())
