"""The live model, replaced while requests are running: load the new one, run it once, then swap one reference."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.errors import DataError, MissingError, SegpipeError
from segpipe.files import read_json
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import BUILD_FILE, Card, check_bundle, golden_pairs
from segpipe.release.endpoint_file import Endpoint
from segpipe.release.record import DetailedModelRecord
from segpipe.samples import ClassSpec

log = logging.getLogger("segpipe.serving")

_FIRST_PAUSE_S = 1.0
"""Seconds after the first failure to load a release until it is tried again; each further pause is twice as long."""
_MAX_PAUSE_S = 60.0
UNRELEASED = "unreleased"
"""The version of a bundle that is served without a release."""


class ModelInfo(DetailedModelRecord):
    """The record of the live model, with the release that it belongs to."""

    version: str
    """The released version, or "unreleased"."""
    git_commit: str | None
    """The commit of the release."""
    classes: list[ClassSpec]
    """The classes, in the order of class ids."""
    promoted_at: str | None = None
    """Time at which the version was promoted: UTC, ISO 8601."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model with its metadata."""

    segmenter: Segmenter
    info: ModelInfo
    example: tuple[str, bytes]
    """File name and content of a test image, to try the model with."""


def load_model(
    bundle: Path, version: str, commit: str | None, promoted_at: str | None = None, threads: int = 0
) -> LoadedModel:
    """Load a bundle and run it once on a golden image.

    Args:
        bundle: the folder of the bundle.
        version: the version that is reported with each answer.
        commit: the Git commit of the release, if known.
        promoted_at: when the version was promoted (UTC, ISO 8601), if it was.
        threads: threads of the engine; 0 leaves the number to the engine.

    Raises:
        MissingError: there is no bundle in the folder.
        DataError: the mask has another shape than the golden mask.
    """
    segmenter, card = Segmenter.from_bundle(bundle, threads=threads), Card.read(bundle)
    golden = golden_pairs(bundle)[0]
    if segmenter.predict(**golden.predict_arguments()).class_ids.shape != golden.class_ids().shape:
        raise DataError("the model's mask does not have the shape of its golden mask", where=golden.expected)
    record = card.values_of(DetailedModelRecord) | {"engine": segmenter.engine.name}
    classes = list(segmenter.spec.classes.classes)
    info = ModelInfo(version=version, git_commit=commit, promoted_at=promoted_at, classes=classes, **record)
    return LoadedModel(segmenter, info, (golden.input.name, golden.input.read_bytes()))


class PendingSwap(BaseModel):
    """A release that is to be live and could not be loaded yet. It is tried again, each time after a longer pause."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    version: str | None
    """The version that the endpoint file names; null if the file cannot be read."""
    error: str
    """Why it could not be loaded, in short; the log of the server has the whole error."""
    attempts: int
    """How often it was tried."""


class ModelHolder:
    """Holds the live model. If it has an endpoint file, a thread watches the file and loads the release that it names.

    `current` may be read from any thread; a request finishes on the model that it read. If a new release cannot be loaded, this
    is logged, the former model stays live, and `pending` says why until another attempt succeeds.

    Args:
        endpoint: the endpoint file to follow; None serves `bundle` until the process ends.
        bundle: the folder of a bundle; used only without an endpoint file.
        threads: threads of the engine; 0 leaves the number to the engine.
        poll_s: seconds between two checks of the endpoint file.

    Raises:
        MissingError: there is no endpoint file or no bundle.
        DataError: the bundle is not the one that was released.
    """

    def __init__(self, endpoint: Path | None, bundle: Path, threads: int = 0, poll_s: float = 0.5) -> None:
        self._endpoint, self._threads, self._poll_s = endpoint, threads, poll_s
        self._seen: tuple[int, int, int] | None = None
        self._retry_at = 0.0
        self.pending: PendingSwap | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if endpoint is None:
            build = read_json(bundle.parent / BUILD_FILE) if (bundle.parent / BUILD_FILE).exists() else {}
            self.current = load_model(
                bundle, build.get("version", UNRELEASED), build.get("git_commit"), threads=threads
            )
        else:
            self._seen = _file_stamp(endpoint)
            self.current = self._load_endpoint(endpoint)

    def start(self) -> None:
        """Start watching the endpoint file, if there is one."""
        if self._endpoint is not None:
            self._thread = threading.Thread(target=self._watch, name="model-holder", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching the endpoint file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> bool:
        """Check the endpoint file once, and return True if another release is live now.

        Raises:
            SegpipeError: the release that the file names cannot be loaded. Later calls try it again.
        """
        stamp = _file_stamp(self._endpoint) if self._endpoint is not None else None
        if self._endpoint is None or stamp is None:
            return False
        if stamp != self._seen:
            self._seen, self.pending = stamp, None
        elif self.pending is None or time.monotonic() < self._retry_at:
            return False
        before = self.current
        try:
            loaded = self._load_endpoint(self._endpoint)
        except Exception as error:
            self._postpone(self._endpoint, error)
            raise
        self.current, self.pending = loaded, None
        log.info("model %s is live now (before: %s)", loaded.info.version, before.info.version)
        return True

    def _postpone(self, endpoint: Path, error: Exception) -> None:
        attempts = self.pending.attempts + 1 if self.pending else 1
        try:
            version = Endpoint.read(endpoint).version
        except SegpipeError:
            version = None
        # anyone may read it, and the whole text of an error has paths of the server, which only the log shows
        reason = error.what if isinstance(error, SegpipeError) else type(error).__name__
        self.pending = PendingSwap(version=version, error=reason, attempts=attempts)
        self._retry_at = time.monotonic() + min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 10))

    def _load_endpoint(self, path: Path) -> LoadedModel:
        if not path.exists():
            raise MissingError("nothing is promoted here", where=path, fix="segpipe promote VERSION --stage prod")
        endpoint = Endpoint.read(path)
        bundle = (path.parent / endpoint.bundle).resolve()
        check_bundle(bundle, endpoint.bundle_sha256)
        return load_model(bundle, endpoint.version, endpoint.commit, endpoint.promoted_at, self._threads)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.refresh()
            except SegpipeError as error:
                log.error("model %s stays live: %s", self.current.info.version, error)
            except Exception:
                log.exception("model %s stays live: the new one cannot be loaded", self.current.info.version)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return values that change whenever a file is replaced; None if the file does not exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
