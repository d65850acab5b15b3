"""The record of a release: its model, its origin, its bundle and its blessing. Stored in the message of the version's Git tag."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from segpipe.json_models import validation_error
from segpipe.release.packaging.blessing import BlessReport
from segpipe.release.record import ModelRecord
from segpipe.release.tags import VersionTag


class Release(ModelRecord):
    """The record of one version, stored in the message of its tag and in .segpipe/releases/VERSION/release.json."""

    model_config = ConfigDict(extra="ignore")
    name: str
    """Name of the model, `release.name` of params.yaml: the prefix of its tags."""
    version: str
    commit: str
    plan_hash: str | None
    """Hash of the training plan."""
    parent: str | None = None
    """The release from which training started (NAME@VERSION)."""
    model_sha256: str
    """Hash of the files that decide the predictions; the same for two exports of one model."""
    bundle_sha256: str
    """Hash of the whole bundle."""
    bless: BlessReport
    created_at: str
    """UTC, ISO 8601."""
    stages: list[str] = Field(default_factory=list)
    """The stages that the version is in now. Read from the tags and not stored."""

    @property
    def score(self) -> float | None:
        """The value of `metric` on the test images."""
        return self.scores[self.metric].value if self.metric in self.scores else None

    def record(self) -> dict[str, Any]:
        """Return the fields that are stored, beginning with those that name the release, for people who read the tag."""
        fields = self.model_dump(mode="json", exclude={"stages"})
        return {key: fields[key] for key in ("name", "version", "commit")} | fields


def parse_record(tag: VersionTag) -> Release | None:
    """Parse the record in the message of a version tag; None if segpipe did not make the tag.

    Raises:
        ConfigError: the message has a record that is not valid.
    """
    _, brace, rest = tag.message.partition("{")
    try:
        return Release.model_validate(json.loads(brace + rest))
    except json.JSONDecodeError:
        return None
    except ValidationError as error:
        raise validation_error(error, f"the tag of {tag.version}", Release) from error
