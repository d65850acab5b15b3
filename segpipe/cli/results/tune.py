"""`segpipe tune`: search for a candidate's training settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Candidate, Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.training.tuning import TrialResult

EXAMPLE = "segpipe tune unet --trials 20\nsegpipe tune unet --trials 20 --apply"


def tune(
    candidate: Candidate,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Total number of trials; those of an earlier search count.")
    ] = 20,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=5, help="Training steps of each trial. Default: a quarter of the plan's."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best settings into params.yaml.")] = False,
    json: Json = False,
) -> None:
    """Search for a candidate's training settings with short trainings that are scored on the validation images.

    The first trial uses the current settings. A search that was stopped continues when it is started again. Several searches that
    run at the same time share the trials.
    """
    from dataclasses import asdict

    from segpipe.progress import say
    from segpipe.stages import tune as search
    from segpipe.workspace.params_file import set_params

    root = workspace_root()
    results = search(root, candidate, trials, steps)
    best = results[0]
    if json:
        print_json({"best": asdict(best), "tried": [asdict(trial) for trial in results]})
    else:
        rows = [[str(t.number), f"{t.score:.4f}", t.ended, _settings_text(t.settings)] for t in results]
        print_table(["trial", "val IoU", "", "settings"], rows)
        typer.echo(_as_yaml(candidate, best))
    if best.number == 0:
        say("no trial is better than the current settings")
    elif apply:
        set_params(root, {f"candidates.{candidate}.train.{name}": value for name, value in best.settings.items()})
        say(f"params.yaml: candidates.{candidate}.train has the settings of trial {best.number}")
    else:
        say("copy the block above into params.yaml, or use --apply to write it")


def _settings_text(settings: dict[str, Any]) -> str:
    """Format settings on one line: ``learning_rate 0.005, loss (cross_entropy 1, dice 0.9)``."""
    parts = []
    for name, value in settings.items():
        nested = isinstance(value, dict)
        text = f"({_settings_text(value)})" if nested else f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"{name} {text}")
    return ", ".join(parts)


def _as_yaml(candidate: str, best: TrialResult) -> str:
    import yaml

    return yaml.safe_dump({"candidates": {candidate: {"train": best.settings}}}, sort_keys=False).rstrip()
