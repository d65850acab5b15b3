"""The graph, stale stages and the state of the data, with pipelines of one-line programs."""

from __future__ import annotations

import json
import logging

import psutil
import pytest

from segpipe.errors import ConfigError, MissingError
from segpipe.workspace import pipeline
from tests.worlds import pipelines


def test_graph_lists_each_stage_after_its_upstream(chain):
    stages = pipeline.graph(chain)
    order = list(stages)
    assert sorted(order) == ["a", "b", "c", "d"]
    for stage in stages.values():
        assert all(order.index(upstream) < order.index(stage.name) for upstream in stage.upstream)
    assert sorted(stages["d"].upstream) == ["b", "c"]
    assert {name: stage.resource for name, stage in stages.items()} == {
        "a": "any",
        "b": "device",
        "c": "device",
        "d": "any",
    }
    assert pipeline.ancestors(stages, "d") == {"a", "b", "c"}
    assert pipeline.ancestors(stages, "a") == set()


def test_the_real_pipeline_is_read(repo_root):
    stages = pipeline.graph(repo_root)
    assert pipeline.ancestors(stages, "export") == set(stages) - {"export"}
    assert set(stages["validate"].upstream) == {"ingest"}
    assert stages["train@unet"].resource == "device"
    assert stages["train@unet"].cmd == "segpipe train unet"


def test_an_unknown_resource_is_refused(tmp_path):
    stages = pipelines.chain()
    stages["a"]["meta"] = {"resource": "moon"}
    with pytest.raises(ConfigError, match="moon"):
        pipeline.graph(pipelines.make(tmp_path / "ws", stages))


def test_a_stage_is_stale_until_it_has_run_and_again_after_a_change(chain):
    assert set(pipeline.stale(chain)) == {"a", "b", "c", "d"}
    for name in ("a", "b", "c", "d"):
        assert pipeline.is_stale(chain, name)
        result, _ = pipelines.run(chain, name)
        assert result.ok and result.error is None, result
        assert not pipeline.is_stale(chain, name)
    assert pipeline.stale(chain) == {}
    assert (chain / "d.txt").read_text() == "HELLO\n"

    (chain / "data" / "y.txt").write_text("new")
    assert set(pipeline.stale(chain)) == {"a"}
    assert "data modified" in pipeline.stale(chain)["a"]
    pipelines.run(chain, "a")
    assert not pipeline.is_stale(chain, "b"), "a wrote the same bytes again, so b has nothing to do"


def test_data_state_follows_the_folder(chain):
    assert pipeline.data_state(chain) == "clean"
    pointer = (chain / "data.dvc").read_bytes()
    (chain / "data" / "y.txt").write_text("more")
    assert pipeline.data_state(chain) == "changed"
    pipeline.add_data(chain)
    assert pipeline.data_state(chain) == "clean"
    assert (chain / "data.dvc").read_bytes() != pointer

    for path in (chain / "data").iterdir():
        path.unlink()
    (chain / "data").rmdir()
    assert pipeline.data_state(chain) == "missing"
    pipeline.pull_data(chain)
    assert (chain / "data" / "y.txt").read_text() == "more"

    (chain / "data.dvc").unlink()
    assert pipeline.data_state(chain) == "untracked"


def test_data_that_cannot_be_restored_are_an_error_with_a_fix(chain):
    import shutil

    shutil.rmtree(chain / "data")
    shutil.rmtree(chain / ".dvc" / "cache")
    with pytest.raises(MissingError, match=r"dvc pull"):
        pipeline.pull_data(chain)
    (chain / "data.dvc").unlink()
    assert pipeline.data_state(chain) == "absent"
    with pytest.raises(MissingError, match="segpipe data"):
        pipeline.add_data(chain)


def test_a_folder_without_dvc_is_an_error_with_a_fix(tmp_path):
    with pytest.raises(ConfigError, match="segpipe init"):
        pipeline.graph(tmp_path)


def test_a_broken_pipeline_file_is_an_error_in_one_line(chain):
    (chain / "dvc.yaml").write_text("stages: {a: {cmd: x, deps: [1, {}]}}\n")
    with pytest.raises(ConfigError) as error_info:
        pipeline.graph(chain)
    assert "dvc.yaml" in str(error_info.value)
    (chain / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        pipeline.stale(chain)


def test_an_unknown_stage_is_named(chain):
    with pytest.raises(ConfigError, match="nobody"):
        pipeline.is_stale(chain, "nobody")


def test_remotes_are_listed(chain):
    assert pipeline.remotes(chain) == {}
    (chain / ".dvc" / "config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = /somewhere\n")
    assert pipeline.remotes(chain) == {"store": "/somewhere"}


def test_the_lock_of_a_dead_process_is_no_error_if_the_first_output_stream_is_closed(chain):
    """DVC logs that it removed the lock; its log handlers would write to the stream of the time of its import."""
    from dvc.logger import LoggerHandler

    with (chain / "stream").open("w") as stream:
        closed = LoggerHandler(stream)
    logging.getLogger("dvc").addHandler(closed)
    nobody = next(pid for pid in range(2**22 - 1, 1, -1) if not psutil.pid_exists(pid))
    held = {"write": {str(chain / "a.txt"): {"pid": nobody, "cmd": "dvc repro"}}}
    (chain / ".dvc" / "tmp").mkdir(exist_ok=True)
    (chain / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    assert pipeline.is_stale(chain, "a")
