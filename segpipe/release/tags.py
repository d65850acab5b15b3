"""Versions and stages as Git tags, in GTO's convention: `segmenter@v0.2.0` is a version, `segmenter#prod#3` the third event, a
version's assignment to a stage (`segmenter#prod!#4` takes it back). GTO writes them; here they are read, in one Git call.
"""

from __future__ import annotations

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
    """The tag's message: `segpipe.release.registry` keeps the release's record in it."""


@dataclass(frozen=True)
class StageEvent:
    """A stage tag: from this event on, the version at `commit` is (or no longer is) in the stage."""

    number: int
    stage: str
    commit: str
    assigned: bool


@dataclass(frozen=True)
class Tags:
    """What the tags of one artifact say."""

    versions: list[VersionTag]
    """Oldest version first."""
    events: list[StageEvent]
    """In the order in which they happened."""

    def version_at(self, commit: str) -> str | None:
        """The version that a commit carries."""
        return next((v.version for v in self.versions if v.commit == commit), None)

    def history(self, stage: str) -> list[str | None]:
        """Which version was live in a stage after each of its events, None where none was.

        As GTO has it: the version assigned last is live, and when it is taken back, the one before it that was not.
        """
        lives: list[str | None] = []
        assigned: list[str] = []
        for event in self.events:
            if event.stage == stage and (version := self.version_at(event.commit)) is not None:
                assigned = [v for v in assigned if v != version] + [version] * event.assigned
                lives.append(assigned[-1] if assigned else None)
        return lives

    def live(self, stage: str) -> str | None:
        """The version that is in a stage now."""
        return next(iter(reversed(self.history(stage))), None)


def checked_version(version: str) -> str:
    """The version itself where it is one (v1.2.3), and so is safe as a file name; ConfigError otherwise."""
    if not _VERSION.fullmatch(version):
        raise ConfigError(
            "not a version", found=repr(version)[:60], expected="such as v0.2.0", fix="segpipe models lists them"
        )
    return version


def checked_stage(stage: str) -> str:
    """The stage itself where its name is one (prod), and so is safe as a file name; ConfigError otherwise."""
    if not _STAGE.fullmatch(stage):
        raise ConfigError(
            "not a stage", found=repr(stage)[:60], expected="lower-case letters, digits and '-', such as prod"
        )
    return stage


def version_key(version: str) -> tuple[int, ...]:
    """What versions are ordered by: v0.10.0 comes after v0.9.0."""
    return tuple(map(int, version[1:].split(".")))


def read_tags(root: Path, name: str) -> Tags:
    """The tags of an artifact; none in a folder without Git."""
    if not is_repository(root):
        return Tags([], [])
    form = "%(refname:strip=2)%1f%(objectname)%1f%(*objectname)%1f%(contents)%1e"
    listed = git(root, "for-each-ref", f"--format={form}", "refs/tags")
    versions: dict[str, VersionTag] = {}
    events = []
    withdrawn = set()
    for record in listed.split("\x1e"):
        if not record.strip():
            continue
        tag, own, peeled, message = record.lstrip("\n").split("\x1f")
        if match := re.fullmatch(rf"{re.escape(name)}@({_VERSION.pattern})(!?)", tag):
            if match[5]:
                withdrawn.add(match[1])
            else:
                versions[match[1]] = VersionTag(match[1], peeled or own, message.strip())
        elif match := re.fullmatch(rf"{re.escape(name)}#({_STAGE.pattern})(!?)#(\d+)", tag):
            events.append(StageEvent(int(match[3]), match[1], peeled or own, not match[2]))
    kept = [versions[v] for v in sorted(versions, key=version_key) if v not in withdrawn]
    return Tags(kept, sorted(events, key=lambda event: event.number))


def tag_version(root: Path, name: str, version: str, message: str) -> None:
    """Tag HEAD as a version."""
    from gto.api import register

    who = identity(root)
    register(
        root, name, "HEAD", version=version, message=message, author=who["user.name"], author_email=who["user.email"]
    )


def tag_stage(root: Path, name: str, version: str, stage: str) -> None:
    """Tag the commit of a version as being in a stage from now on."""
    from gto.api import assign

    who = identity(root)
    assign(root, name, stage, version=version, force=True, author=who["user.name"], author_email=who["user.email"])
