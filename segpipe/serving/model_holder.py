"""The model that answers, exchanged while requests are running: load and warm up the new one, then swap one reference."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from segpipe.errors import DataError, MissingError, SegpipeError
from segpipe.files import read_json
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import BUILD_FILE, Card, check_bundle, golden_pairs
from segpipe.release.endpoint_file import Endpoint
from segpipe.release.record import RecordedVerdict, Score
from segpipe.samples import ClassSpec

log = logging.getLogger("segpipe.serving")

UNRELEASED = "unreleased"


_FROM_CARD = {
    "data_hash",
    "weights_sha256",
    "candidate",
    "family",
    "options",
    "int8",
    "metric",
    "scores",
    "gates",
    "lineage",
}


class ModelInfo(BaseModel):
    """Where the model that answers comes from: `GET /v1/model`."""

    version: str
    git_commit: str | None
    data_hash: str
    weights_sha256: str
    candidate: str
    family: str
    options: dict[str, Any]
    engine: str
    int8: str | None
    """What became of int8, in words; None where it was not asked for."""
    metric: str
    scores: dict[str, Score]
    gates: list[RecordedVerdict]
    classes: list[ClassSpec]
    lineage: dict[str, str]
    promoted_at: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready, with its papers."""

    segmenter: Segmenter
    info: ModelInfo
    example: tuple[str, bytes]
    """Name and content of an image that the model was tested on."""


def load_model(
    bundle: Path, version: str, commit: str | None, promoted_at: str | None = None, threads: int = 0
) -> LoadedModel:
    """Load a bundle and run it once; raises where it does not load or does not give its own golden mask."""
    segmenter, card = Segmenter.from_bundle(bundle, threads=threads), Card.read(bundle)
    golden = golden_pairs(bundle)[0]
    if segmenter.predict(**golden.given()).class_ids.shape != golden.class_ids().shape:
        raise DataError("the model's answer does not fit its golden mask", where=golden.expected)
    info = ModelInfo(
        version=version,
        git_commit=commit,
        promoted_at=promoted_at,
        engine=segmenter.engine.name,
        classes=list(segmenter.spec.classes.classes),
        **card.model_dump(include=_FROM_CARD),
    )
    return LoadedModel(segmenter, info, (golden.input.name, golden.input.read_bytes()))


class ModelHolder:
    """Holds the model that answers. With an endpoint file, a thread watches it and swaps when it names another release.

    `current` may be read from any thread; a request that keeps what it read finishes on that model. A new bundle that is
    broken is logged and left: the old model goes on answering.
    """

    def __init__(self, endpoint: Path | None, bundle: Path, threads: int = 0, poll_s: float = 0.5) -> None:
        self._endpoint, self._threads, self._poll_s = endpoint, threads, poll_s
        self._seen: tuple[int, int, int] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if endpoint is None:
            built = read_json(bundle.parent / BUILD_FILE) if (bundle.parent / BUILD_FILE).exists() else {}
            self.current = load_model(
                bundle, built.get("version", UNRELEASED), built.get("git_commit"), threads=threads
            )
        else:
            self._seen = _stamp(endpoint)
            self.current = self._load_endpoint(endpoint)

    def start(self) -> None:
        """Begin to watch the endpoint file, where there is one."""
        if self._endpoint is not None:
            self._thread = threading.Thread(target=self._watch, name="champion", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> bool:
        """Look at the endpoint file once; True where another release answers from now on."""
        stamp = _stamp(self._endpoint) if self._endpoint is not None else None
        if self._endpoint is None or stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        before = self.current
        self.current = self._load_endpoint(self._endpoint)
        log.info("model %s answers now (before: %s)", self.current.info.version, before.info.version)
        return True

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
                log.error("model %s goes on answering: %s", self.current.info.version, error)
            except Exception:
                log.exception("model %s goes on answering: the new one does not load", self.current.info.version)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is replaced; None where it is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
