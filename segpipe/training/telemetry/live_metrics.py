"""The curves of a training while it runs, in dvclive's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segpipe.training.distributed.process_group import rank


@contextlib.contextmanager
def live_metrics(folder: Path) -> Iterator[Any]:
    """Open dvclive, which writes files only: by default it would also change dvc.yaml and create Git references.

    Yields None in all processes but the first.
    """
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
        except (
            OSError,
            RuntimeError,
        ) as end_error:  # often a consequence of the first error, which must be the one reported
            error.add_note(f"the end of its curves may be missing: {end_error}")
        raise
    live.end()


def log_entry(live: Any, entry: dict[str, float], more: dict[str, float] | None = None) -> None:
    """Log an entry of the history as metrics of its step.

    Args:
        live: as `live_metrics` yields it.
        entry: an entry of the history, with its step.
        more: further metrics of that step.
    """
    if live is None:
        return
    prefix = "train" if "loss" in entry else "val"
    live.step = int(entry["step"])
    for name, value in (entry | (more or {})).items():
        if name != "step":
            live.log_metric(f"{prefix}/{name}", value)
    live.make_summary()
