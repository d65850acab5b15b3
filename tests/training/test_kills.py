"""kill -9 at any moment, and the same command goes on to the same bytes."""

import json
import os
import subprocess
import sys

import pytest


def kill(folder, repo_root, kills, seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.worlds.forked_commands", folder, str(kills), str(seed)],
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == kills
    killed = [f for f in found if f["ended"] == -9]
    assert len(killed) >= kills * 2 // 3, "most of them ended before they were killed"
    assert all(f["same"] for f in found), found
    return killed


def test_a_training_that_was_killed_ends_in_the_same_bytes(tmp_path, repo_root):
    kill(tmp_path, repo_root, 2, 0)


@pytest.mark.slow
def test_25_kills_at_random_moments(tmp_path, repo_root):
    killed = kill(tmp_path, repo_root, 25, 1)
    assert len({f["step"] for f in killed}) > 5, "they went on from different steps"
    assert any(f["half_written"] for f in killed), "some were killed while a checkpoint was written"
