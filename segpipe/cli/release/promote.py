"""`segpipe promote` and `segpipe rollback`: which version is live."""

from __future__ import annotations

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.release.options import Stage, Version

PROMOTE_EXAMPLE = "segpipe promote v0.2.0 --stage prod"
ROLLBACK_EXAMPLE = "segpipe rollback --stage prod"


def promote(version: Version, stage: Stage = None, json: Json = False) -> None:
    """Make a version live. Running endpoints change to it by themselves; nothing is restarted."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    where = stage or load_params(root).release.stage
    before = registry.live(root, where)
    registry.promote(root, version, where)
    say(f"{version} is live in {where}" + (f" (before: {before})" if before else ""))
    if json:
        print_json({"stage": where, "live": version, "before": before})


def rollback(stage: Stage = None, json: Json = False) -> None:
    """Bring back the version that was live before. Running endpoints change to it by themselves."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    where = stage or load_params(root).release.stage
    before = registry.live(root, where)
    now = registry.rollback(root, where)
    say(f"{now} is live in {where} again (before: {before})")
    if json:
        print_json({"stage": where, "live": now, "before": before})
