"""`segpipe tune`: a search for a candidate's training settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Candidate, Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.training.tuning import TrialResult

EXAMPLE = "segpipe tune unet --trials 20\nsegpipe tune unet --trials 20 --apply"


def tune(
    candidate: Candidate,
    trials: Annotated[int, typer.Option("--trials", min=1, help="In all: what an earlier search tried counts.")] = 20,
    steps: Annotated[
        int | None, typer.Option("--steps", min=5, help="Of each trial; a quarter of the plan's by default.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best settings into params.yaml.")] = False,
    json: Json = False,
) -> None:
    """Search for a candidate's training settings: short trainings, scored on the validation images.

    A search that was stopped goes on; several started side by side share the trials. The first trial is the settings as they are.
    """
    from dataclasses import asdict

    from segpipe.progress import say
    from segpipe.stages import tune as search
    from segpipe.workspace.params_file import set_params

    root = workspace_root()
    tried = search(root, candidate, trials, steps)
    best = tried[0]
    if json:
        print_json({"best": asdict(best), "tried": [asdict(one) for one in tried]})
    else:
        rows = [[str(t.number), f"{t.score:.4f}", t.ended, _in_words(t.settings)] for t in tried]
        print_table(["trial", "val IoU", "", "settings"], rows)
        typer.echo(_as_yaml(candidate, best))
    if best.number == 0:
        say("nothing tried is better than the settings as they are")
    elif apply:
        set_params(root, {f"candidates.{candidate}.train.{name}": value for name, value in best.settings.items()})
        say(f"params.yaml: candidates.{candidate}.train has the settings of trial {best.number}")
    else:
        say("the block above goes into params.yaml; --apply writes it")


def _in_words(settings: dict[str, Any]) -> str:
    """``learning_rate 0.005, loss (cross_entropy 1, dice 0.9)``."""
    found = []
    for name, value in settings.items():
        shown = (
            f"({_in_words(value)})" if isinstance(value, dict) else f"{value:g}" if isinstance(value, float) else value
        )
        found.append(f"{name} {shown}")
    return ", ".join(found)


def _as_yaml(candidate: str, best: TrialResult) -> str:
    import yaml

    return yaml.safe_dump({"candidates": {candidate: {"train": best.settings}}}, sort_keys=False).rstrip()
