"""Promotion: make a version live in a stage, return to an earlier one, and tell running servers by the endpoint file.

Each change is a Git tag that is added and never removed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from segpipe.errors import MissingError, SegpipeError
from segpipe.progress import say
from segpipe.release.endpoint_file import Endpoint, endpoint_path
from segpipe.release.registry import find_version, release_bundle, tags_of
from segpipe.release.stage_history import StageChange, changes, rollback_target
from segpipe.release.tags import checked_stage, tag_stage
from segpipe.workspace.paths import Paths


def live(root: Path, stage: str = "prod") -> str | None:
    """Return the version that is live in a stage.

    Args:
        root: the workspace.
        stage: such as "prod".

    Returns:
        The version by the Git tags; None if no version is live or the workspace is not a Git repository.
    """
    return tags_of(root).live(checked_stage(stage))


def was_in(root: Path, version: str, stage: str) -> bool:
    """Return whether a version is in a stage or ever was."""
    return version in tags_of(root).history(checked_stage(stage))


def promote(root: Path, version: str, stage: str = "prod", reason: str | None = None) -> None:
    """Make a version live in a stage; running servers of the stage follow. Nothing changes if it is live there already.

    Args:
        root: the workspace.
        version: such as "v0.2.0".
        stage: such as "prod".
        reason: why, in the words of the user; kept in the tag.

    Raises:
        ConfigError: `version` or `stage` is not valid.
        MissingError: there is no such version, or its bundle cannot be fetched.
    """
    _make_live(root, version, stage, is_rollback=False, reason=reason)


def rollback(root: Path, stage: str = "prod", version: str | None = None, reason: str | None = None) -> str:
    """Return a stage to an earlier version, as a new event. Repeated, it goes further back.

    Args:
        root: the workspace.
        stage: such as "prod".
        version: the version to return to; None for the one that was live before the current one.
        reason: why, in the words of the user; kept in the tag.

    Returns:
        The version that is live now.

    Raises:
        ConfigError: the named version is live already.
        MissingError: there is no such earlier version, or its bundle cannot be fetched.
    """
    target = rollback_target(tags_of(root), checked_stage(stage), version)
    _make_live(root, target, stage, is_rollback=True, reason=reason)
    return target


def _make_live(root: Path, version: str, stage: str, *, is_rollback: bool, reason: str | None) -> None:
    checked_stage(stage)
    record = find_version(root, version)
    release_bundle(root, version)
    if live(root, stage) != version:
        tag_stage(root, record.name, version, stage, is_rollback=is_rollback, reason=reason)
    update_endpoint(root, stage)


def stage_changes(root: Path) -> list[StageChange]:
    """List which version became live in which stage, by whom and why, in the order in which it happened.

    Args:
        root: the workspace.
    """
    return changes(tags_of(root))


def update_endpoint(root: Path, stage: str = "prod") -> Path:
    """Write the endpoint file of a stage from the tags, unless it is up to date, and return its path.

    Raises:
        MissingError: nothing is promoted to the stage, or the bundle cannot be fetched.
    """
    version = live(root, stage)
    if version is None:
        raise MissingError(
            f"nothing is promoted to {stage}",
            where=root,
            fix=f"segpipe run, or segpipe promote VERSION --stage {stage}",
        )
    record, bundle, path = find_version(root, version), release_bundle(root, version), endpoint_path(root, stage)
    relative = bundle.relative_to(Paths(root).state)
    if path.exists():
        try:
            if Endpoint.read(path).version == version:
                return path
        except SegpipeError as error:
            say(f"{error} Writing it again.")
    Endpoint(
        version=version,
        bundle=f"../{relative.as_posix()}",
        bundle_sha256=record.bundle_sha256,
        commit=record.commit,
        promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(path)
    return path
