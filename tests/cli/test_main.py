"""Tests of the command line: help, errors, start-up, signals, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from typer.main import get_command

from segpipe.cli.main import app
from segpipe.errors import BusyError, DataError, GateBlocked
from tests.worlds.command_line import call_command

COMMANDS = {
    "init",
    "demo",
    "data import",
    "data formats",
    "data export",
    "data demo",
    "data stats",
    "data inspect",
    "data suspects",
    "ingest",
    "validate",
    "prepare",
    "plan",
    "train",
    "evaluate",
    "select",
    "export",
    "run",
    "gate",
    "report",
    "compare",
    "models",
    "promote",
    "rollback",
    "serve",
    "schedule",
    "predict",
    "verify",
    "families",
    "doctor",
    "tune",
}


def commands(group=None, prefix=""):
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield prefix + name


def test_the_commands_are_those_of_the_documentation():
    assert set(commands()) == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_each_command_has_an_example(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call_command(capsys, monkeypatch, *command.split(), "--help")
    assert code == 0
    assert re.search(rf"Example: segpipe (-C \S+ )?{command}", out)


def test_every_option_and_argument_has_a_help_text():
    def walk(group):
        for command in group.commands.values():
            if hasattr(command, "commands"):
                yield from walk(command)
            else:
                yield from ((command.name, p.name, p) for p in command.params)

    without_help = [
        (command, name) for command, name, parameter in walk(get_command(app)) if not getattr(parameter, "help", None)
    ]
    assert without_help == []


def test_commands_for_programs_have_json():
    group = get_command(app).commands
    names = ["models", "families", "doctor", "predict", "run", "promote", "rollback", "verify"]
    assert all(any(p.name == "json" for p in group[name].params) for name in names)
    assert any(p.name == "json" for p in group["data"].commands["stats"].params)


def test_starting_up_loads_nothing_heavy():
    code = "import sys, segpipe.cli.main; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = {
        "torch",
        "pandas",
        "prefect",
        "dvc",
        "bentoml",
        "numpy",
        "pydantic",
        "albumentations",
        "great_expectations",
        "cv2",
    }
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("mask has a value that no class has", where="masks/a.png", found=7, fix="add it"), 3),
        (GateBlocked("no"), 4),
        (BusyError("busy"), 5),
    ],
)
def test_a_users_error_is_one_line_and_an_exit_code(capsys, monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr("segpipe.cli.main.app", fail)
    exit_code, out, err = call_command(capsys, monkeypatch)
    assert (exit_code, out) == (code, "")
    assert err == f"error: {error}\n"


def test_an_interruption_ends_with_130(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("segpipe.cli.main.app", interrupt)
    assert call_command(capsys, monkeypatch)[0] == 130


WRITES = """
import signal, sys, time
from pathlib import Path
from segpipe.cli import main
from segpipe.files import atomic_path

def write():
    with atomic_path(Path("table.bin")) as target:
        target.write_bytes(b"half")
        print(target.name, flush=True)
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background, or under nohup
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN if name in sys.argv else signal.SIG_DFL)
main.app = write
main.program()
"""


def writing(folder, *ignored):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, *ignored], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert (folder / process.stdout.readline().strip()).read_bytes() == b"half"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stage_that_is_ended_removes_partly_written_files(tmp_path, number):
    process = writing(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "error: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_an_ignored_signal_stays_ignored(tmp_path):
    process = writing(tmp_path, "SIGHUP")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    process.communicate()


def test_a_bug_shows_a_traceback(tmp_path):
    code = "import segpipe.cli.main as m\ndef fail(): raise RuntimeError('a bug')\nm.app = fail\nm.program()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "RuntimeError: a bug" in done.stderr


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("raise SystemExit(7)", 7), ("raise SystemExit('no')", 1)])
def test_a_program_ends_at_once_with_complete_output(end, code):
    """Buffers are flushed, functions registered with atexit are called, and the exit code is kept."""
    lines = [
        "import atexit, segpipe.cli.main as m",
        "def app():",
        " atexit.register(print, 'done')",
        " print('x' * 100_000)",
    ]
    program = "\n".join([*lines, f" {end}", "m.app = app", "m.program()"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "x" * 100_000 + "\ndone\n")


def test_the_outcome_is_written_for_the_calling_run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SEGPIPE_OUTCOME", str(tmp_path / "outcome.json"))

    def fail():
        raise DataError("bad")

    monkeypatch.setattr("segpipe.cli.main.app", fail)
    call_command(capsys, monkeypatch)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["code"], outcome["message"]) == (3, "bad")
    assert outcome["seconds"] > 0
    monkeypatch.undo()
    monkeypatch.setenv("SEGPIPE_OUTCOME", str(tmp_path / "good.json"))
    call_command(capsys, monkeypatch, "--version")
    assert json.loads((tmp_path / "good.json").read_text())["code"] == 0


def test_wrong_usage_ends_with_2(capsys, monkeypatch):
    code, _, err = call_command(capsys, monkeypatch, "train")
    assert code == 2 and "CANDIDATE" in err
    assert call_command(capsys, monkeypatch, "-C", "/nowhere/at/all", "models")[0] == 2


def test_the_error_outside_a_workspace_has_a_fix(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = call_command(capsys, monkeypatch, "models")
    assert code == 2
    assert err.count("\n") == 1 and "segpipe init" in err


def test_the_version(capsys, monkeypatch):
    from segpipe import __version__

    assert call_command(capsys, monkeypatch, "--version")[:2] == (0, f"segpipe {__version__}\n")


def test_c_changes_the_folder(capsys, monkeypatch, tmp_path, repo_root):
    monkeypatch.chdir(tmp_path)
    code, _, err = call_command(capsys, monkeypatch, "-C", str(repo_root / "segpipe"), "plan", "nobody", "--explain")
    assert code == 2 and "no such candidate" in err
    os.chdir(tmp_path)


def test_families_lists_them_all(capsys, monkeypatch):
    from segpipe.models.registry import FAMILIES

    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = call_command(capsys, monkeypatch, "families")
    assert all(name in out for name in FAMILIES)
    _, out, _ = call_command(capsys, monkeypatch, "families", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows.keys() == FAMILIES.keys()
    assert "encoder" in rows["unet"]["settings"]
