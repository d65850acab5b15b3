"""The endpoint file: one small JSON a stage, replaced atomically, that tells every running server which bundle to answer with.

What is live is decided by the Git tags (`segpipe.release.registry`); this file carries that decision to the servers.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.config import config_error
from segpipe.files import read_json, write_text


class Endpoint(BaseModel):
    """`.segpipe/endpoints/STAGE.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    bundle: str
    """Path of the bundle, relative to the folder of this file."""
    bundle_sha256: str
    commit: str
    promoted_at: str
    """UTC, ISO 8601."""

    @classmethod
    def read(cls, path: Path) -> Endpoint:
        """Read and check an endpoint file."""
        try:
            return cls.model_validate(read_json(path, max_bytes=1 << 20))
        except ValidationError as error:
            raise config_error(error, path, cls) from error

    def write(self, path: Path) -> None:
        """Replace an endpoint file; readers see the former one or this one."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def endpoint_path(root: Path, stage: str) -> Path:
    """Where the endpoint file of a stage lies in a workspace."""
    return root / ".segpipe" / "endpoints" / f"{stage}.json"
