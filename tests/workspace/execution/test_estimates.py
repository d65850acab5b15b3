"""Tests of the estimates: closed forms for simple graphs, bounds for random ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.workspace.execution.estimates import (
    OTHER_S,
    TYPICAL_S,
    expected_seconds,
    read_durations,
    record_durations,
    remaining_seconds,
)
from segpipe.workspace.pipeline import Stage


def graph(edges: dict[str, str], resource="any") -> dict[str, Stage]:
    """Return stages by name; `edges` has the upstream stages of each, as one letter each."""
    return {name: Stage(name, "", tuple(upstream), resource) for name, upstream in edges.items()}


SECONDS = {"a": 1.0, "b": 10.0, "c": 4.0, "d": 2.0}
DIAMOND = {"a": "", "b": "a", "c": "a", "d": "bc"}


@pytest.mark.parametrize(
    ("resource", "n_devices", "max_parallel", "seconds"),
    [("any", 1, 2, 13.0), ("any", 1, 1, 17.0), ("device", 1, 4, 17.0), ("device", 2, 4, 13.0)],
)
def test_a_diamond_takes_its_longest_path_or_the_sum(resource, n_devices, max_parallel, seconds):
    stages = graph(DIAMOND, resource)
    assert remaining_seconds(stages, SECONDS, set(), {}, n_devices, max_parallel) == seconds


def test_what_is_done_or_running_counts_as_such():
    stages = graph(DIAMOND)
    assert remaining_seconds(stages, SECONDS, {"a", "c"}, {"b": 3.0}, 1, 2) == 5.0
    assert remaining_seconds(stages, SECONDS, set("abcd"), {}, 1, 2) == 0.0
    assert remaining_seconds(stages, SECONDS, set("abc"), {"d": -1.0}, 1, 2) == 0.0


@given(st.data())
def test_any_graph_takes_between_its_bounds(data):
    """The longest path and the sum over the processors are lower bounds, the sum of all durations is an upper bound."""
    names = [f"s{i}" for i in range(data.draw(st.integers(1, 8)))]
    stages, longest = {}, {}
    seconds = {name: float(data.draw(st.integers(0, 20))) for name in names}
    for i, name in enumerate(names):
        upstream = tuple(other for other in names[:i] if data.draw(st.booleans()))
        stages[name] = Stage(name, "", upstream, "any")
        longest[name] = seconds[name] + max((longest[other] for other in upstream), default=0.0)
    workers = data.draw(st.integers(1, 4))
    total = sum(seconds.values())
    estimate = remaining_seconds(stages, seconds, set(), {}, 1, workers)
    assert max(*longest.values(), total / workers, 0.0) <= estimate + 1e-9
    assert estimate <= total + 1e-9


def test_a_budget_counts_more_than_the_last_run_and_the_last_run_more_than_a_typical_one(tmp_path):
    path = tmp_path / "durations.json"
    assert read_durations(path) == {}
    record_durations(path, {"train@unet": 50.0, "ingest": 33.333})
    record_durations(path, {"train@unet": 60.0})
    durations = read_durations(path)
    assert durations == {"train@unet": 60.0, "ingest": 33.33}
    stages = ["train@unet", "train@fpn", "ingest", "export", "mine"]
    assert expected_seconds(stages, {"train@unet": 120.0}, durations) == {
        "train@unet": 120.0,
        "train@fpn": TYPICAL_S["train"],
        "ingest": 33.33,
        "export": TYPICAL_S["export"],
        "mine": OTHER_S,
    }


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "x"}', '{"a": null}'])
def test_a_damaged_file_counts_as_empty(tmp_path, content):
    (tmp_path / "durations.json").write_text(content)
    assert read_durations(tmp_path / "durations.json") == {}
