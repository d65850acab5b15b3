"""Versions and stages as Git tags, in the format of GTO (https://github.com/iterative/gto).

`segmenter@v0.2.0` is a version. `segmenter#prod#3` is event 3, which assigns the version at its commit to the stage prod;
`segmenter#prod!#4` withdraws an assignment. GTO writes the tags. This module reads them with a single Git call.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import ConfigError
from segpipe.workspace.git import git, identity, is_repository

_VERSION = re.compile(r"v(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
_STAGE = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class VersionTag:
    """A version tag."""

    version: str
    commit: str
    message: str
    """The message of the tag, which contains the record of the release."""


@dataclass(frozen=True)
class StageEvent:
    """A stage tag: from this event on, the version at `commit` is assigned to the stage, or no longer is."""

    number: int
    stage: str
    commit: str
    assigned: bool
    """False if the event withdraws the version from the stage."""
    is_rollback: bool = False
    """True if `segpipe rollback` made the event."""
    reason: str | None = None
    """Why, in the words of the user."""
    by: str = ""
    """Name of the user in Git."""
    at: str = ""
    """Time of the tag, ISO 8601."""


@dataclass(frozen=True)
class Tags:
    """The tags of one artifact."""

    versions: list[VersionTag]
    """Oldest version first."""
    events: list[StageEvent]
    """In the order in which they happened."""

    def version_at(self, commit: str) -> str | None:
        """Return the version at a commit, if it has one."""
        return next((v.version for v in self.versions if v.commit == commit), None)

    def history(self, stage: str) -> list[str | None]:
        """Return the version that was live in a stage after each of its events; None if no version was."""
        return [live for event, _, live in self.timeline() if event.stage == stage]

    def timeline(self) -> list[tuple[StageEvent, str, str | None]]:
        """List the events of all stages, each with its version and the version that was live in the stage after it.

        As in GTO, the version that was assigned last is live. If it is withdrawn, the one assigned before it is live again.
        """
        result: list[tuple[StageEvent, str, str | None]] = []
        assigned: dict[str, list[str]] = {}
        for event in self.events:
            version = self.version_at(event.commit)
            if version is not None:
                others = [v for v in assigned.get(event.stage, []) if v != version]
                assigned[event.stage] = others + [version] * event.assigned
                result.append((event, version, next(iter(reversed(assigned[event.stage])), None)))
        return result

    def live(self, stage: str) -> str | None:
        """Return the version that is live in a stage now."""
        return next(iter(reversed(self.history(stage))), None)


def checked_version(version: str) -> str:
    """Return a version unchanged if it is valid (v1.2.3), and therefore safe as a file name.

    Raises:
        ConfigError: it is not valid.
    """
    if not _VERSION.fullmatch(version):
        raise ConfigError(
            "not a version",
            found=repr(version)[:60],
            expected="a version such as v0.2.0",
            fix="segpipe models lists them",
        )
    return version


def checked_stage(stage: str) -> str:
    """Return the name of a stage unchanged if it is valid (prod), and therefore safe as a file name.

    Raises:
        ConfigError: it is not valid.
    """
    if not _STAGE.fullmatch(stage):
        raise ConfigError(
            "not a stage",
            found=repr(stage)[:60],
            expected="lower-case letters, digits and '-', such as prod",
            fix="use prod, staging or a name of your own",
        )
    return stage


def version_key(version: str) -> tuple[int, ...]:
    """Return the sort key of a version: v0.10.0 comes after v0.9.0."""
    return tuple(map(int, version[1:].split(".")))


def read_tags(root: Path, name: str) -> Tags:
    """Read the tags of an artifact. A folder without a Git repository has none."""
    if not is_repository(root):
        return Tags([], [])
    fields = ("refname:strip=2", "objectname", "*objectname", "contents", "taggername", "creatordate:iso-strict")
    form = "%1f".join(f"%({field})" for field in fields) + "%1e"
    output = git(root, "for-each-ref", f"--format={form}", "refs/tags")
    versions: dict[str, VersionTag] = {}
    events = []
    withdrawn = set()
    for record in output.split("\x1e"):
        if not record.strip():
            continue
        tag, object_id, peeled_id, message, tagger, time = record.lstrip("\n").split("\x1f")
        commit = peeled_id or object_id  # an annotated tag is an object of its own, which points to the commit
        if match := re.fullmatch(rf"{re.escape(name)}@({_VERSION.pattern})(!?)", tag):
            if match[5]:
                withdrawn.add(match[1])
            else:
                versions[match[1]] = VersionTag(match[1], commit, message.strip())
        elif match := re.fullmatch(rf"{re.escape(name)}#({_STAGE.pattern})(!?)#(\d+)", tag):
            is_rollback, reason = _parse_stage_message(message)
            events.append(StageEvent(int(match[3]), match[1], commit, not match[2], is_rollback, reason, tagger, time))
    valid = [versions[v] for v in sorted(versions, key=version_key) if v not in withdrawn]
    return Tags(valid, sorted(events, key=lambda event: event.number))


def tag_version(root: Path, name: str, version: str, message: str) -> None:
    """Tag HEAD as a version."""
    from gto.api import register

    user = identity(root)
    register(
        root, name, "HEAD", version=version, message=message, author=user["user.name"], author_email=user["user.email"]
    )


def tag_stage(
    root: Path, name: str, version: str, stage: str, *, is_rollback: bool = False, reason: str | None = None
) -> None:
    """Tag the commit of a version as assigned to a stage from now on.

    Args:
        root: the workspace.
        name: the name of the model.
        version: such as "v0.2.0".
        stage: such as "prod".
        is_rollback: whether this returns to an earlier version.
        reason: why, in the words of the user.
    """
    from gto.api import assign

    user = identity(root)
    title = f"Roll back {stage} to {version}" if is_rollback else f"Promote {version} to {stage}"
    record = {"action": "rollback" if is_rollback else "promote", "reason": reason}
    assign(
        root,
        name,
        stage,
        version=version,
        message=f"{title}\n\n{json.dumps(record, ensure_ascii=False)}\n",
        force=True,
        author=user["user.name"],
        author_email=user["user.email"],
    )


def _parse_stage_message(message: str) -> tuple[bool, str | None]:
    """Return whether the message of a stage tag is that of a rollback, and its reason. GTO's own messages have neither."""
    try:
        record = json.loads(message[message.index("{") :])
        return record.get("action") == "rollback", str(record["reason"]) if record.get("reason") else None
    except (ValueError, AttributeError):
        return False, None
