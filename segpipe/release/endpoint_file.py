"""The endpoint file: a small JSON file per stage that names the bundle to serve. It is replaced atomically.

The Git tags decide which version is live (`segpipe.release.registry`); this file passes the decision on to running servers.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.files import write_text
from segpipe.json_models import read_model
from segpipe.workspace.paths import Paths


class Endpoint(BaseModel):
    """The content of `.segpipe/endpoints/STAGE.json`."""

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
        """Read and validate an endpoint file.

        Raises:
            DataError: the file cannot be read or is not JSON.
            ConfigError: its content is not valid.
        """
        return read_model(path, cls, max_bytes=1 << 20)

    def write(self, path: Path) -> None:
        """Replace an endpoint file. Readers see either the former content or the new one."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def endpoint_path(root: Path, stage: str) -> Path:
    """Return the path of the endpoint file of a stage."""
    return Paths(root).endpoint(stage)
