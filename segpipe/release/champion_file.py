"""champion.json: the released version that the gates compare the winner with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from segpipe.config import load_params
from segpipe.drift.reference import REFERENCE_FILE
from segpipe.errors import DataError
from segpipe.files import read_json, write_json, write_text
from segpipe.json_models import read_model
from segpipe.release import promotion, registry
from segpipe.workspace.paths import Paths


class ChampionFile(BaseModel):
    """The content of champion.json; without a version, nothing has been released to production yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    version: str | None = None
    commit: str | None = None
    bundle_sha256: str | None = None

    @classmethod
    def read(cls, path: Path) -> ChampionFile:
        """Read champion.json; a missing file means that there is no champion.

        Args:
            path: the file.

        Raises:
            DataError: the file is not valid.
        """
        if not path.exists():
            return cls()
        fix = 'git checkout champion.json, or write {"version": null} into it'
        return read_model(path, cls, error_type=DataError, kind="champion file", fix=fix)


def refresh_champion(root: Path) -> bool:
    """Make the live version the champion.

    Write champion.json, the model that `select` compares with, and reference.json, the data that `validate` compares with.

    Args:
        root: the workspace.

    Returns:
        True if the champion has changed.
    """
    paths = Paths(root)
    version = promotion.live(root, load_params(root).release.stage)
    champion = ChampionFile()
    reference: dict[str, Any] = {}
    if version is not None:
        release = registry.find_version(root, version)
        champion = ChampionFile(version=version, commit=release.commit, bundle_sha256=release.bundle_sha256)
        bundled = registry.release_bundle(root, version) / REFERENCE_FILE
        reference = read_json(bundled) if bundled.exists() else {}  # bundles of early releases have no reference
    if not paths.reference.exists() or read_json(paths.reference) != reference:
        write_text(paths.reference, json.dumps(reference) + "\n")
    content = champion.model_dump() if version else {"version": None}
    if paths.champion.exists() and read_json(paths.champion) == content:
        return False
    write_json(paths.champion, content)
    return True
