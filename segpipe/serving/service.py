"""The BentoML service. Each worker process has a model that follows the endpoint file. Does not need torch."""

from __future__ import annotations

import bentoml

from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.processes import end_with_parent, show_log
from segpipe.serving.settings import Settings

SETTINGS = Settings.from_environment()
MAX_WAITING = 64
"""Requests that a worker holds at once; further requests are answered with status 429."""

app = create_app()


@bentoml.service(
    name="segmenter",
    workers=SETTINGS.workers,
    traffic={"timeout": 120, "max_concurrency": MAX_WAITING * SETTINGS.workers},
)
@bentoml.asgi_app(app, path="/")
class SegmenterService:
    """Segment images over HTTP."""

    def __init__(self) -> None:
        show_log()
        end_with_parent()
        self.holder = ModelHolder(SETTINGS.endpoint, SETTINGS.bundle, SETTINGS.engine_threads)
        self.holder.start()
        attach(app, self.holder, SETTINGS)

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Stop watching the endpoint file."""
        self.holder.stop()
