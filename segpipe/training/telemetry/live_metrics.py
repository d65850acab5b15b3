"""The curves of a training as it runs, in dvclive's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segpipe.training.distributed.process_group import rank


@contextlib.contextmanager
def live_metrics(folder: Path) -> Iterator[Any]:
    """dvclive, writing files alone: it would otherwise rewrite dvc.yaml and make Git references. None but in the first process."""
    if rank():
        yield None
        return
    from dvclive import Live

    live = Live(str(folder), report=None, dvcyaml=None, save_dvc_exp=False)
    try:
        yield live
    except BaseException as error:
        try:
            live.end()
        except (OSError, RuntimeError) as beside:  # often a consequence of what ended the training, which is to be told
            error.add_note(f"its curves may lack their end: {beside}")
        raise
    live.end()


def log_entry(live: Any, entry: dict[str, float], more: dict[str, float] | None = None) -> None:
    """Log an entry of the history as metrics of its step."""
    if live is None:
        return
    room = "train" if "loss" in entry else "val"
    live.step = int(entry["step"])
    for name, value in (entry | (more or {})).items():
        if name != "step":
            live.log_metric(f"{room}/{name}", value)
    live.make_summary()
