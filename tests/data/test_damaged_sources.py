"""Damaged sources of every kind end in one line of error, or come in with labels: no traceback, no hang, no unbounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds import mutation_trials
from tests.worlds.mutation_seeds import SEEDS

_ROOT = Path(__file__).resolve().parents[2]
_QUICK_TRIALS, _TRIALS = 12, 280
"""Damaged sources of each kind: 216 in the quick tests, 5,040 in the slow ones."""


def faults(kinds: list[str], first: int, count: int) -> list[dict[str, object]]:
    """Run trials in a process of their own; return those with a fault. A process that crashes fails the test."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.worlds.mutation_trials",
        ",".join(kinds),
        str(first),
        str(count),
    ]
    # one thread, so that address space is not reserved for the stacks and heaps of others
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    run = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    lines = run.stdout.splitlines()
    assert run.returncode == 0 and lines[-1] == "done", f"crashed at {lines[-1:]}: {run.stderr[-2000:]}"
    return [entry for line in lines[:-1] if "fault" in (entry := json.loads(line))]


@pytest.mark.timeout(300)
def test_some_damaged_sources_of_every_kind() -> None:
    assert faults([*SEEDS], 0, _QUICK_TRIALS) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_sources(kind: str) -> None:
    assert faults([kind], _QUICK_TRIALS, _TRIALS) == []


@pytest.mark.parametrize("kind", SEEDS)
def test_the_undamaged_sources_are_imported_with_labels(kind: str, tmp_path: Path) -> None:
    mutation_trials.write_source(tmp_path / "source", SEEDS[kind]())
    report = mutation_trials.import_dataset(
        tmp_path / "source", tmp_path / "data", "auto", mutation_trials.ImportOptions(), jobs=1
    )
    assert (report.images, report.masks) == (2, 2)


def test_a_bug_of_a_reader_is_a_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("width")

    monkeypatch.setattr(mutation_trials, "import_dataset", broken)
    assert "KeyError: 'width'" in (mutation_trials.run_trial("coco", 1) or "")


def test_a_reader_that_waits_is_a_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(mutation_trials, "import_dataset", lambda *arguments, **options: time.sleep(9))
    monkeypatch.setattr(mutation_trials, "_MAX_SECONDS", 1)
    assert "takes more than 1 s" in (mutation_trials.run_trial("coco", 1) or "")


def test_too_much_memory_is_a_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from segpipe.errors import DataError

    def greedy(*arguments: object, **options: object) -> None:
        np.empty(3 << 30, np.uint8)
        raise DataError("too large")

    monkeypatch.setattr(mutation_trials, "import_dataset", greedy)
    monkeypatch.setattr(mutation_trials, "_MAX_GROWTH", 1 << 20)
    assert "MiB" in (mutation_trials.run_trial("coco", 1) or "")


def test_labels_of_background_alone_are_a_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation_trials, "_any_labels", lambda data: False)
    assert "all background" in (mutation_trials.run_trial("raster", 5) or "")
