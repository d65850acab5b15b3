"""The history of a stage: which version became live when, by whom and why, and which version a rollback returns to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.errors import ConfigError, MissingError
from segpipe.release.tags import StageEvent, Tags

Action = Literal["promote", "rollback", "withdraw"]


class StageChange(BaseModel):
    """A change of the live version of a stage, as `segpipe models --history` lists it."""

    model_config = ConfigDict(extra="forbid")
    number: int
    """The number of the event's tag."""
    at: str
    """Time of the tag, with the offset from UTC (ISO 8601)."""
    stage: str
    action: Action
    version: str
    """The version that was promoted, returned to, or withdrawn."""
    live: str | None
    """The version that was live after the change; None if no version was."""
    before: str | None
    """The version that was live before the change; None if no version was."""
    by: str
    """Name of the user in Git."""
    reason: str | None = None


def changes(tags: Tags, stage: str | None = None) -> list[StageChange]:
    """List the changes of one stage, or of all stages, in the order in which they happened.

    Args:
        tags: the tags of the model.
        stage: such as "prod"; None for all stages.
    """
    live: dict[str, str | None] = {}
    result = []
    for event, version, after in tags.timeline():
        if stage is None or event.stage == stage:
            result.append(
                StageChange(
                    number=event.number,
                    at=event.at,
                    stage=event.stage,
                    action=_action(event),
                    version=version,
                    live=after,
                    before=live.get(event.stage),
                    by=event.by,
                    reason=event.reason,
                )
            )
        live[event.stage] = after
    return result


def rollback_target(tags: Tags, stage: str, version: str | None = None) -> str:
    """Return the version that a rollback makes live.

    Each rollback goes one promotion further back: after a rollback from v0.3.0 to v0.2.0, the next one returns to the version that was
    live before v0.2.0, and not to v0.3.0.

    Args:
        tags: the tags of the model.
        stage: such as "prod".
        version: the version that the user names; None for the one before the live version.

    Raises:
        ConfigError: the named version is live already.
        MissingError: the named version was never live in the stage, or there is no earlier version.
    """
    history = tags.history(stage)
    current = history[-1] if history else None
    if version is not None:
        if version == current:
            raise ConfigError(f"this version is already live in {stage}", found=version, fix="name an earlier version")
        if version not in history:
            raise MissingError(
                f"this version was never live in {stage}",
                found=version,
                expected=", ".join(dict.fromkeys(v for v in history if v is not None and v != current)) or None,
                fix=f"segpipe promote {version} --stage {stage}",
            )
        return version
    if current is None and any(history):
        return next(v for v in reversed(history) if v is not None)
    earlier = _promotions_in_force(tags, stage)[:-1]
    if not earlier:
        raise MissingError(
            f"no earlier version to return to in {stage}",
            found=f"before {current}, no version was live there" if current else "no version was ever live there",
            fix="segpipe models lists the versions; segpipe promote VERSION makes one live",
        )
    return earlier[-1]


def _promotions_in_force(tags: Tags, stage: str) -> list[str]:
    """Return the versions whose promotions were neither withdrawn nor rolled back, the live version last."""
    versions: list[str] = []
    for event, version, _ in tags.timeline():
        if event.stage != stage:
            continue
        if not event.assigned:
            versions = [v for v in versions if v != version]
        elif event.is_rollback and version in versions:
            while versions[-1] != version:
                versions.pop()
        elif versions[-1:] != [version]:
            versions.append(version)
    return versions


def _action(event: StageEvent) -> Action:
    return "withdraw" if not event.assigned else "rollback" if event.is_rollback else "promote"
