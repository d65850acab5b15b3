"""Estimate how long the rest of a run takes, from the durations of former runs and the training budgets."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from segpipe.files import write_json
from segpipe.workspace.execution.scheduler import ready_stages
from segpipe.workspace.pipeline import Stage

TYPICAL_S = {
    "ingest": 2.0,
    "validate": 3.0,
    "prepare": 2.0,
    "plan": 8.0,
    "train": 120.0,
    "evaluate": 6.0,
    "select": 2.0,
    "export": 6.0,
}
"""Seconds that a stage of a small dataset takes, used until the stage has run once. Measured with the demo data on two cores; `train`
is that of a network whose budget is not a time."""
TYPICAL_CLASSICAL_S = 8.0
"""The same for the training of a classical model."""
OTHER_S = 10.0
"""The same for a stage that a user has added to dvc.yaml."""


def read_durations(path: Path) -> dict[str, float]:
    """Read the duration of the last run of each stage, in seconds. A file that is missing or damaged counts as empty."""
    try:
        content = json.loads(path.read_text())
        return {str(stage): float(seconds) for stage, seconds in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def record_durations(path: Path, durations: Mapping[str, float]) -> None:
    """Add durations in seconds to the file, and replace older ones of the same stages."""
    write_json(path, {**read_durations(path), **{stage: round(seconds, 2) for stage, seconds in durations.items()}})


def expected_seconds(
    stages: Collection[str], budgets: Mapping[str, float], durations: Mapping[str, float]
) -> dict[str, float]:
    """Estimate the duration of each stage: its time budget if it has one, else the duration of its last run, else a typical one.

    Args:
        stages: names of stages, such as "train@unet".
        budgets: seconds that a stage may take, for stages that are limited in time.
        durations: seconds of the last run by stage.

    Returns:
        Seconds by stage.
    """
    typical = {stage: TYPICAL_S.get(stage.partition("@")[0], OTHER_S) for stage in stages}
    return {stage: budgets.get(stage, durations.get(stage, typical[stage])) for stage in stages}


def remaining_seconds(
    stages: Mapping[str, Stage],
    expected: Mapping[str, float],
    done: Collection[str],
    running: Mapping[str, float],
    n_devices: int,
    max_parallel: int,
) -> float:
    """Estimate when the last stage ends, by simulating the scheduler with the expected durations.

    Args:
        stages: the graph, each stage after those that it reads from.
        expected: seconds by stage.
        done: stages that have ended or need not run.
        running: seconds that each running stage still needs.
        n_devices: number of `device` stages that may run at once.
        max_parallel: number of stages that may run at once.

    Returns:
        Seconds from now.
    """
    now, finished = 0.0, dict.fromkeys(done)
    ends = [(max(0.0, left), name) for name, left in running.items()]
    heapq.heapify(ends)
    while True:
        active = {name for _, name in ends}
        for stage in ready_stages(stages, finished, dict.fromkeys(active)):
            busy_devices = sum(stages[name].resource == "device" for name in active)
            if len(active) < max_parallel and (stage.resource != "device" or busy_devices < n_devices):
                active.add(stage.name)
                heapq.heappush(ends, (now + expected[stage.name], stage.name))
        if not ends:
            return now
        now, name = heapq.heappop(ends)
        finished[name] = None
