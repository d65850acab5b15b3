"""champion.json: the released version that gates compare with, as it was when the selection was made."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.errors import DataError
from segpipe.json_models import read_model


class ChampionFile(BaseModel):
    """The content of champion.json; without a version, nothing has been released to production yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    version: str | None = None
    commit: str | None = None
    bundle_sha256: str | None = None

    @classmethod
    def read(cls, path: Path) -> ChampionFile:
        """Read champion.json; a missing file names no champion."""
        if not path.exists():
            return cls()
        fix = 'git checkout champion.json, or write {"version": null} into it'
        return read_model(path, cls, error_type=DataError, kind="champion file", fix=fix)
