import os

import pytest

from segpipe.training.machine import choose_workers


@pytest.mark.parametrize(
    ("cores", "device", "devices", "workers"),
    [(1, "cpu", 1, 0), (2, "cpu", 1, 1), (16, "cpu", 1, 4), (16, "cpu", 4, 1), (4, "cpu", 4, 0), (64, "cuda", 1, 12),
     (64, "cuda", 8, 7), (8, "cuda", 8, 1)],
)  # fmt: skip
def test_processes_that_share_a_machine_share_its_processors(monkeypatch, cores, device, devices, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    found = choose_workers(device, devices)
    assert found == workers and (cores <= devices or devices * found < cores)
