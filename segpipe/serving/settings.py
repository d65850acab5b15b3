"""What a server is told by its environment: `segpipe serve` sets these variables, and so may a container."""

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

_NUMBERS = {"workers": WORKERS, "max_upload_mb": MAX_UPLOAD_MB, "max_megapixels": MAX_MEGAPIXELS}


@dataclass(frozen=True)
class Settings:
    """Settings of one server."""

    endpoint: Path | None
    """The endpoint file to follow; None serves `bundle` for good."""
    bundle: Path
    """What to serve without an endpoint file: by default the `bundle` folder beside the package, as it lies in a Bento."""
    workers: int
    max_upload_mb: float
    max_megapixels: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from environment variables; params.yaml's defaults where they are unset."""
        endpoint = environment.get(ENDPOINT)
        beside = Path(segpipe.__file__).parents[1] / "bundle"
        try:
            chosen = ServeParams.model_validate(
                {field: environment[variable] for field, variable in _NUMBERS.items() if variable in environment}
            )
        except ValidationError as error:
            raise validation_error(error, " or ".join(_NUMBERS.values()), ServeParams) from error
        return cls(
            endpoint=Path(endpoint) if endpoint else None,
            bundle=Path(environment.get(BUNDLE) or beside),
            workers=chosen.workers,
            max_upload_mb=chosen.max_upload_mb,
            max_megapixels=chosen.max_megapixels,
        )

    @property
    def engine_threads(self) -> int:
        """Threads of the engine in each worker: 0 leaves it to the engine, several workers share the processors."""
        return 0 if self.workers == 1 else max(1, (os.cpu_count() or 1) // self.workers)
