"""Graph, staleness and running of stages, on pipelines of one-line programs."""

from __future__ import annotations

import os
import threading
import time

import psutil
import pytest

from segpipe import pipeline
from segpipe.errors import ConfigError, MissingError
from tests import fake


@pytest.fixture()
def chain(tmp_path):
    return fake.make(tmp_path / "ws", fake.chain())


def run(root, name, **settings):
    lines = []
    return pipeline.run_stage(root, name, lines.append, **settings), lines


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
    stages = fake.chain()
    stages["a"]["meta"] = {"resource": "moon"}
    with pytest.raises(ConfigError, match="moon"):
        pipeline.graph(fake.make(tmp_path / "ws", stages))


def test_stages_turn_fresh_one_by_one_and_stale_again_when_data_change(chain):
    assert set(pipeline.stale(chain)) == {"a", "b", "c", "d"}
    for name in ("a", "b", "c", "d"):
        assert pipeline.is_stale(chain, name)
        done, _ = run(chain, name)
        assert done.ok and done.error is None, done
        assert not pipeline.is_stale(chain, name)
    assert pipeline.stale(chain) == {}
    assert (chain / "d.txt").read_text() == "HELLO\n"

    (chain / "data" / "y.txt").write_text("new")
    assert set(pipeline.stale(chain)) == {"a"}
    assert "data modified" in pipeline.stale(chain)["a"]
    run(chain, "a")
    assert not pipeline.is_stale(chain, "b"), "a wrote the same bytes again, so b has nothing to do"


def test_a_stage_that_is_up_to_date_does_nothing(chain):
    run(chain, "a")
    before = (chain / "a.txt").stat().st_mtime_ns
    done, _ = run(chain, "a")
    assert done.ok
    assert (chain / "a.txt").stat().st_mtime_ns == before


def test_lines_come_as_they_are_written_and_without_dvcs_chatter(tmp_path):
    """The second line comes only after the first has been read."""
    code = 'print("first", flush=True); ' + fake.wait_for("read") + '; open("o", "w").write("o"); print("second")'
    root = fake.make(tmp_path / "ws", {"slow": {"cmd": fake.python(code), "outs": ["o"]}})
    seen = []

    def read(line):
        seen.append(line)
        (root / "read").touch()

    done = pipeline.run_stage(root, "slow", read)
    assert done.ok, done
    assert seen == ["first", "second"]


@pytest.mark.parametrize("code", [1, 3, 7])
def test_the_exit_code_of_the_stage_itself_comes_back(tmp_path, code):
    cmd = fake.python(f'import sys; print("it went wrong"); sys.exit({code})')
    done, lines = run(fake.make(tmp_path / "ws", {"bad": {"cmd": cmd, "outs": ["o"]}}), "bad")
    assert (done.ok, done.code) == (False, code)
    assert "it went wrong" in done.error and "bad" in done.error
    assert lines == ["it went wrong"]


def test_segpipes_own_error_comes_back_word_for_word(tmp_path):
    root = fake.make(tmp_path / "ws", {"ingest": {"cmd": "segpipe plan nobody --explain", "outs": ["o"]}})
    done, lines = run(root, "ingest")
    assert done.code == 2
    assert done.error.startswith("params.yaml: no such candidate (found nobody")
    assert f"error: {done.error}" in lines


def test_an_error_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path):
    root = fake.make(tmp_path / "ws", {"s": {"cmd": "segpipe plan nobody --explain", "outs": ["o"]}})
    run(root, "s")
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text().replace("segpipe plan nobody --explain", "exit 9"))
    done, _ = run(root, "s")
    assert done.code == 9


def test_an_out_that_the_stage_did_not_write_is_dvcs_complaint(tmp_path):
    done, _ = run(fake.make(tmp_path / "ws", {"s": {"cmd": "segpipe --version", "outs": ["o"]}}), "s")
    assert done.code == 1
    assert "does not exist" in done.error


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_stage_that_is_killed_says_by_what(tmp_path, monkeypatch, shell):
    monkeypatch.setenv("SHELL", shell)  # what DVC runs a command with; dash waits for it (137), bash becomes it (-9)
    cmd = fake.python("import os; os.kill(os.getpid(), 9)")
    done, _ = run(fake.make(tmp_path / "ws", {"oom": {"cmd": cmd, "outs": ["o"]}}), "oom")
    assert done.code == 1
    assert "SIGKILL" in done.error


def sleeper(root):
    """A stage that starts a process of its own and waits for it; both leave their ids."""
    child = 'import os,time; open("child","w").write(str(os.getpid())); time.sleep(600)'
    code = (
        "import os,sys,subprocess; "
        'open("parent","w").write(str(os.getpid())); '
        f'subprocess.run([sys.executable, "-c", """{child}"""])'
    )
    return fake.make(root, {"sleep": {"cmd": fake.python(code), "outs": ["o"]}})


def started(root, name):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if (root / name).exists() and (text := (root / name).read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"{name} did not start")


def gone(pid):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_stopping_ends_the_stage_and_all_it_started(tmp_path):
    root = sleeper(tmp_path / "ws")
    stop = threading.Event()
    result = []
    thread = threading.Thread(target=lambda: result.append(run(root, "sleep", stop=stop)[0]))
    thread.start()
    processes = [started(root, "parent"), started(root, "child")]
    stop.set()
    thread.join(120)
    assert result[0].code == 130 and "stopped" in result[0].error
    assert all(gone(pid) for pid in processes)
    assert pipeline.is_stale(root, "sleep"), "the pipeline can be read again right away"


def test_a_timeout_ends_the_stage(tmp_path):
    root = sleeper(tmp_path / "ws")
    done, _ = run(root, "sleep", timeout=3)
    assert not done.ok
    assert "took longer than 3 s" in done.error
    if (root / "child").exists():
        assert gone(started(root, "child"))


def test_a_stage_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "GRACE_S", 1.0)
    code = 'import os,signal,time; signal.signal(15, signal.SIG_IGN); open("parent","w").write(str(os.getpid())); time.sleep(600)'
    root = fake.make(tmp_path / "ws", {"deaf": {"cmd": fake.python(code), "outs": ["o"]}})
    stop = threading.Event()
    thread = threading.Thread(target=lambda: run(root, "deaf", stop=stop))
    thread.start()
    pid = started(root, "parent")
    stop.set()
    thread.join(120)
    assert not thread.is_alive()
    assert gone(pid)


def test_the_stages_environment_is_passed_on(tmp_path):
    cmd = fake.python('import os; open("o","w").write(os.environ["CUDA_VISIBLE_DEVICES"])')
    root = fake.make(tmp_path / "ws", {"s": {"cmd": cmd, "outs": ["o"]}})
    assert run(root, "s", environment={"CUDA_VISIBLE_DEVICES": "3"})[0].ok
    assert (root / "o").read_text() == "3"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "3"


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


def test_data_that_are_nowhere_are_an_error_with_the_fix(chain):
    import shutil

    shutil.rmtree(chain / "data")
    shutil.rmtree(chain / ".dvc" / "cache")
    with pytest.raises(MissingError, match=r"dvc pull"):
        pipeline.pull_data(chain)
    (chain / "data.dvc").unlink()
    assert pipeline.data_state(chain) == "absent"
    with pytest.raises(MissingError, match="segpipe data"):
        pipeline.add_data(chain)


def test_a_folder_without_dvc_is_an_error_with_the_fix(tmp_path):
    with pytest.raises(ConfigError, match="segpipe init"):
        pipeline.graph(tmp_path)


def test_a_broken_pipeline_file_is_an_error_in_one_line(chain):
    (chain / "dvc.yaml").write_text("stages: {a: {cmd: x, deps: [1, {}]}}\n")
    with pytest.raises(ConfigError) as caught:
        pipeline.graph(chain)
    assert "dvc.yaml" in str(caught.value)
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


def test_a_section_that_params_lacks_is_named_with_the_fix(tmp_path):
    root = fake.make(tmp_path / "ws", {"a": {"cmd": "true", "params": ["split"]}})
    done, _ = run(root, "a")
    assert done.code == ConfigError.exit_code
    assert done.error == "params.yaml: DVC misses split; write `split: {}` into it to have its defaults"
