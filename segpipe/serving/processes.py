"""Set up a worker process of the server: its log, and its end if the main process of the server is gone."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

log = logging.getLogger("segpipe.serving")

_POLL_S = 1.0


def show_log() -> None:
    """Print the messages of segpipe from level INFO on, each with its time; such as which version is live now."""
    logger = logging.getLogger("segpipe")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO)


def end_with_parent() -> None:
    """End this process when its parent ends, also if the parent was killed.

    Otherwise, the workers of a server whose main process was killed would keep its port.
    """
    threading.Thread(target=_watch_parent, args=(os.getppid(),), name="parent-watch", daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    log.error("the main process of the server is gone: this worker ends")
    os.kill(os.getpid(), signal.SIGTERM)
