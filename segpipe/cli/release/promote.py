"""`segpipe promote` and `segpipe rollback`: change the live version."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.release.options import Reason, Stage, Version

PROMOTE_EXAMPLE = 'segpipe promote v0.2.0 --stage prod --reason "approved by the lab"'
ROLLBACK_EXAMPLE = 'segpipe rollback --stage prod --reason "misses small cells"\nsegpipe rollback --to v0.1.0'

_To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="VERSION",
        help="The version to return to. Default: the one that was live before the current one.",
    ),
]


def promote(version: Version, stage: Stage = None, reason: Reason = None, json: Json = False) -> None:
    """Make a version live in a stage. Running endpoints switch to it without a restart."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import promotion

    root = workspace_root()
    stage = stage or load_params(root).release.stage
    before = promotion.live(root, stage)
    promotion.promote(root, version, stage, reason)
    if before == version:
        say(f"{version} was already live in {stage}: nothing has changed")
    else:
        say(f"{version} is live in {stage}" + (f" (before: {before})" if before else ""))
    if json:
        print_json({"stage": stage, "live": version, "before": before})


def rollback(stage: Stage = None, to: _To = None, reason: Reason = None, json: Json = False) -> None:
    """Make an earlier version of a stage live again. Running endpoints switch to it without a restart.

    Repeated, it goes further back. `segpipe models --history` shows what was live when.
    """
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import promotion

    root = workspace_root()
    stage = stage or load_params(root).release.stage
    before = promotion.live(root, stage)
    version = promotion.rollback(root, stage, to, reason)
    say(f"{version} is live in {stage} again (before: {before})")
    if json:
        print_json({"stage": stage, "live": version, "before": before})
