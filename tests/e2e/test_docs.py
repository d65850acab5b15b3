"""Every command in README.md, CONTRIBUTING.md and docs/ is run, as it stands, in the order of its page.

The one liberty: where a page trains, params.yaml is cut to a few steps of one network, and the gates are switched off.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.commands import all_blocks
from tests.e2e.conftest import BIN, ROOT, Demo, release_second, run, shorten, wait_for

BLOCKS = all_blocks(ROOT)
ENDS_IN_SECONDS = ("git", "gto", "dvc", "segpipe", "curl", "cd", "python", "pytest", "ruff", "prefect", "make")


def of(context: str) -> list:
    return [pytest.param(block.commands, id=block.place) for block in BLOCKS if block.context == context]


def run_all(commands: tuple[str, ...], cwd: Path, background, tmp_path: Path, after: dict | None = None) -> None:
    """Run commands one after the other; `&` at the end starts one in the background, `cd` stays."""
    for number, command in enumerate(commands):
        if command.startswith("cd "):
            cwd = cwd / command[3:]
        elif command.endswith(" &"):
            background(*shlex.split(command[:-2]), cwd=cwd, log=tmp_path / f"{number}.log")
            if command.startswith("segpipe serve"):
                wait_for("http://127.0.0.1:3000/readyz")
        else:
            run("bash", "-c", command, cwd=cwd)
        for start, then in (after or {}).items():
            if command.startswith(start):
                then(cwd)


def test_each_block_of_commands_is_tested_or_says_why_not():
    assert BLOCKS
    for block in BLOCKS:
        assert block.context or block.why_not, (
            f"{block.place}: say `<!-- tested: CONTEXT -->` or `<!-- not tested: REASON -->` before it"
        )
        assert block.context in ("", "checkout", "own-data", "demo", "repro", "prefect", "contributing"), block.place
        assert block.commands, block.place


def test_pages_link_to_files_that_are_there():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("commands", of("checkout"))
def test_checkout(commands, demo):
    assert commands == ("make demo",), "what the fixture ran"
    assert demo.first.code == 0


@pytest.fixture(scope="module")
def own(demo: Demo, tmp_path_factory) -> Path:
    """A folder with ../images beside a place to work in."""
    folder = tmp_path_factory.mktemp("own")
    for part in ("images", "masks"):
        (folder / "images" / part).mkdir(parents=True)
        for path in sorted((demo.root / "data" / part).iterdir())[:60]:
            shutil.copy(path, folder / "images" / part)
    (folder / "docs").mkdir()
    return folder


def own_data_commands(page: str) -> list[str]:
    """The commands of all blocks of a page that are about own data: they build on each other."""
    return [c for b in BLOCKS if b.context == "own-data" and b.place.startswith(f"{page}:") for c in b.commands]


@pytest.mark.slow
def test_own_data(own, background, tmp_path):
    commands = own_data_commands("docs/own-data.md")
    rest = iter(commands)
    assert all(command in rest for command in own_data_commands("README.md")), (
        "the five lines, in their order, are run here"
    )
    run_all(tuple(commands), own / "docs", background, tmp_path, after={"cd my-cells": shorten})
    rebuilt = run("segpipe", "verify", "v0.1.0", "--rebuild", cwd=own / "docs" / "my-cells")
    assert "training again gives the same weights" in rebuilt.out + rebuilt.err


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("commands", of("demo"))
def test_demo_workspace(commands, demo, background, tmp_path):
    image = next((demo.root / "data" / "images").iterdir())
    shutil.copy(image, demo.root / "X.png")
    if len(json.loads(run("segpipe", "models", "--json", cwd=demo.root).out)) < 2:
        release_second(demo)  # with one version there is nothing to go back to
    run_all(commands, demo.root, background, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("commands", of("repro"))
def test_repro_in_the_repository_itself(commands, demo, background, tmp_path):
    shorten(demo.checkout)
    run_all(commands, demo.checkout, background, tmp_path)
    assert (demo.checkout / "bundle" / "model.onnx").exists()
    assert run("git", "diff", "--stat", "data.dvc", cwd=demo.checkout).out == "", (
        "the generator writes what data.dvc names"
    )


def test_contributing_commands_name_what_is_there():
    for block in BLOCKS:
        if block.context == "contributing":
            for command in block.commands:
                program, *words = shlex.split(command)
                assert program in ENDS_IN_SECONDS, command
                for word in words:
                    if "/" in word and not word.startswith(("-", "../")):
                        assert (ROOT / word).exists(), f"{command}: {word}"


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("commands", of("prefect"))
def test_prefect_commands(commands, demo, background, tmp_path):
    """Server, pool, deployment, worker: then a run of the deployment ends well."""
    import httpx

    env = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_HOME": str(tmp_path / "prefect")}
    for number, command in enumerate(commands):
        if command.endswith(" &"):
            background(*shlex.split(command[:-2]), cwd=demo.root, log=tmp_path / f"{number}.log", env=env)
            if "server" in command:
                wait_for("http://127.0.0.1:4200/api/health", 120)
        else:
            run("bash", "-c", command, cwd=demo.root, env=env)
    run("prefect", "deployment", "run", "retrain/weekly", "--watch", cwd=demo.root, env=env, timeout=300)
    states = httpx.post("http://127.0.0.1:4200/api/flow_runs/filter", json={}).json()
    done = [r for r in states if r["state_type"] == "COMPLETED"]
    assert done, states


def test_the_shell_is_the_environments_own():
    assert subprocess.run(
        ["bash", "-c", "command -v segpipe"], env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}, check=True
    )
