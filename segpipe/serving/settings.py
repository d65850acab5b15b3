"""Settings of a server from environment variables. `segpipe serve` sets these variables, and a container may set them too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import segpipe
from segpipe.config import ServeParams
from segpipe.json_models import validation_error

ENDPOINT = "SEGPIPE_ENDPOINT"
BUNDLE = "SEGPIPE_BUNDLE"
WORKERS = "SEGPIPE_WORKERS"
MAX_UPLOAD_MB = "SEGPIPE_MAX_UPLOAD_MB"
MAX_MEGAPIXELS = "SEGPIPE_MAX_MEGAPIXELS"
EXAMPLE = "SEGPIPE_EXAMPLE"

_PARAMS = {"workers": WORKERS, "max_upload_mb": MAX_UPLOAD_MB, "max_megapixels": MAX_MEGAPIXELS, "example": EXAMPLE}
"""The environment variable of each setting that params.yaml has too."""


@dataclass(frozen=True)
class Settings:
    """Settings of one server."""

    endpoint: Path | None
    """The endpoint file to follow; None serves `bundle` until the server ends."""
    bundle: Path
    """The bundle to serve without an endpoint file; by default the folder `bundle` next to the package, as in a Bento."""
    workers: int
    """Number of worker processes."""
    max_upload_mb: float
    """Largest accepted file, MiB."""
    max_megapixels: float
    """Largest accepted image, millions of pixels."""
    example: bool = True
    """Whether a test image is shown to anyone who asks."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from environment variables; unset ones have the defaults of params.yaml.

        Raises:
            ConfigError: a value is not valid.
        """
        endpoint = environment.get(ENDPOINT)
        default_bundle = Path(segpipe.__file__).parents[1] / "bundle"
        try:
            params = ServeParams.model_validate(
                {field: environment[variable] for field, variable in _PARAMS.items() if variable in environment}
            )
        except ValidationError as error:
            raise validation_error(error, " or ".join(_PARAMS.values()), ServeParams) from error
        return cls(
            endpoint=Path(endpoint) if endpoint else None,
            bundle=Path(environment.get(BUNDLE) or default_bundle),
            workers=params.workers,
            max_upload_mb=params.max_upload_mb,
            max_megapixels=params.max_megapixels,
            example=params.example,
        )

    @property
    def engine_threads(self) -> int:
        """Threads of the engine in each worker. One worker leaves the number to the engine (0); several share the processors."""
        return 0 if self.workers == 1 else max(1, (os.cpu_count() or 1) // self.workers)
