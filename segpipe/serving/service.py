"""The BentoML service: one process a worker, each with a model that follows the endpoint file. Needs no torch."""

from __future__ import annotations

import bentoml

from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings

SETTINGS = Settings.from_environment()
WAITING = 64
"""Requests that a worker holds at once; the next one is answered 429."""

app = create_app()


@bentoml.service(
    name="segmenter", workers=SETTINGS.workers, traffic={"timeout": 120, "max_concurrency": WAITING * SETTINGS.workers}
)
@bentoml.asgi_app(app, path="/")
class SegmenterService:
    """Segments images over HTTP."""

    def __init__(self) -> None:
        self.champion = ModelHolder(SETTINGS.endpoint, SETTINGS.bundle, SETTINGS.engine_threads)
        self.champion.start()
        attach(app, self.champion, SETTINGS)

    @bentoml.on_shutdown
    def stop(self) -> None:
        """End the watch of the endpoint file."""
        self.champion.stop()
