"""The endpoint file: one small JSON a stage, replaced atomically, that tells every running server which bundle to answer with.

What is live is decided by the Git tags (`segpipe.release.registry`); this file carries that decision to the servers.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.files import write_text
from segpipe.json_models import read_model


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
        return read_model(path, cls, max_bytes=1 << 20)

    def write(self, path: Path) -> None:
        """Replace an endpoint file; readers see the former one or this one."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def endpoint_path(root: Path, stage: str) -> Path:
    """Where the endpoint file of a stage lies in a workspace."""
    return root / ".segpipe" / "endpoints" / f"{stage}.json"
