import os

import pytest

from segpipe.training.machine import worker_counts


@pytest.mark.parametrize(
    ("cores", "device", "devices", "workers"),
    [
        (1, "cpu", 1, [0]),
        (2, "cpu", 1, [1, 0]),
        (16, "cpu", 1, [4, 1, 0]),
        (16, "cpu", 4, [1, 0]),
        (4, "cpu", 4, [0]),
        (64, "cuda", 1, [12, 6]),
        (64, "cuda", 8, [7, 3]),
        (8, "cuda", 8, [1, 0]),
    ],
)
def test_processes_that_share_a_machine_share_its_processors(monkeypatch, cores, device, devices, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    found = worker_counts(device, devices)
    assert found == workers and (cores <= devices or devices * found[0] < cores)
