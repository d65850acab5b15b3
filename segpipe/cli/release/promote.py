"""`segpipe promote` and `segpipe rollback`: change the live version."""

from __future__ import annotations

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.release.options import Stage, Version

PROMOTE_EXAMPLE = "segpipe promote v0.2.0 --stage prod"
ROLLBACK_EXAMPLE = "segpipe rollback --stage prod"


def promote(version: Version, stage: Stage = None, json: Json = False) -> None:
    """Make a version live in a stage. Running endpoints switch to it without a restart."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    stage = stage or load_params(root).release.stage
    before = registry.live(root, stage)
    registry.promote(root, version, stage)
    if before == version:
        say(f"{version} was already live in {stage}: nothing has changed")
    else:
        say(f"{version} is live in {stage}" + (f" (before: {before})" if before else ""))
    if json:
        print_json({"stage": stage, "live": version, "before": before})


def rollback(stage: Stage = None, json: Json = False) -> None:
    """Make the previous version of a stage live again. Running endpoints switch to it without a restart."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    stage = stage or load_params(root).release.stage
    before = registry.live(root, stage)
    version = registry.rollback(root, stage)
    say(f"{version} is live in {stage} again (before: {before})")
    if json:
        print_json({"stage": stage, "live": version, "before": before})
