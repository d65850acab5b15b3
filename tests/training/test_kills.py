"""After kill -9 at any moment, the same command continues to the same bytes."""

import json
import os
import subprocess
import sys

import pytest


def kill(folder, repo_root, kills, seed):
    process = subprocess.run(
        [sys.executable, "-m", "tests.worlds.forked_commands", folder, str(kills), str(seed)],
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    runs = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(runs) == kills
    killed = [run for run in runs if run["ended"] == -9]
    assert len(killed) >= kills * 2 // 3, "too many ended before they were killed"
    assert all(run["same"] for run in runs), runs
    return killed


def test_a_training_that_was_killed_ends_in_the_same_bytes(tmp_path, repo_root):
    assert kill(tmp_path, repo_root, 2, 0)


@pytest.mark.slow
def test_25_kills_at_random_moments(tmp_path, repo_root):
    killed = kill(tmp_path, repo_root, 25, 1)
    assert len({run["step"] for run in killed}) > 5, "they continued from different steps"
    assert any(run["half_written"] for run in killed), "some were killed while a checkpoint was written"
