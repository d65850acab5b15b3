"""Every command in README.md, CONTRIBUTING.md and docs/ is run unchanged, in the order of its page.

One exception: if a page trains, params.yaml is reduced to a few steps of one network, and the gates are switched off.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest

from tests.e2e.commands import all_blocks, pages
from tests.e2e.conftest import BIN, ROOT

CONTEXTS = ("", "checkout", "own-data", "own-data-sources", "demo", "repro", "prefect", "contributing")
"""What `<!-- tested: CONTEXT -->` may name; `own-data-sources` is tested by tests/cli/data/test_own_data_page.py."""
BLOCKS, PAGES = all_blocks(ROOT), pages(ROOT)
PROGRAMS = ("git", "gto", "dvc", "segpipe", "curl", "cd", "python", "pytest", "ruff", "prefect", "make")


def test_each_block_of_commands_is_tested_or_says_why_it_is_not():
    assert BLOCKS
    for block in BLOCKS:
        assert block.context or block.reason_untested, (
            f"{block.location}: write `<!-- tested: CONTEXT -->` or `<!-- not tested: REASON -->` before it"
        )
        assert block.context in CONTEXTS, block.location
        assert block.commands, block.location


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_exist(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_names_in_the_text_of_pages_exist(page):
    for path in re.findall(r"`((?:segpipe|flows|tests|benchmarks)/[a-z0-9_./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: {path}"
    for name, path in re.findall(r"`([\w.]+)`(?: \(| in )`(segpipe/[\w/]+\.py)`", page.read_text()):
        words = re.findall(r"\w+", (ROOT / path).read_text())
        assert set(name.split(".")) <= set(words), f"{page.name}: {name} in {path}"


def test_paths_in_commands_of_contributing_exist():
    for block in BLOCKS:
        if block.context == "contributing":
            for command in block.commands:
                program, *arguments = shlex.split(command)
                assert program in PROGRAMS, command
                for argument in arguments:
                    if "/" in argument and not argument.startswith(("-", "../")):
                        assert (ROOT / argument).exists(), f"{command}: {argument}"


def test_segpipe_is_on_the_path_of_the_tests():
    assert subprocess.run(
        ["bash", "-c", "command -v segpipe"], env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}, check=True
    )
