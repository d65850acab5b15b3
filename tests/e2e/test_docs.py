"""Every command in README.md, CONTRIBUTING.md and docs/ is run unchanged, in the order of its page.

One exception: if a page trains, params.yaml is reduced to a few steps of one network, and the gates are switched off.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from tests.e2e.commands import all_blocks
from tests.e2e.conftest import BIN, ROOT

BLOCKS = all_blocks(ROOT)
PROGRAMS = ("git", "gto", "dvc", "segpipe", "curl", "cd", "python", "pytest", "ruff", "prefect", "make")


def test_each_block_of_commands_is_tested_or_says_why_it_is_not():
    assert BLOCKS
    for block in BLOCKS:
        assert block.context or block.reason_untested, (
            f"{block.location}: write `<!-- tested: CONTEXT -->` or `<!-- not tested: REASON -->` before it"
        )
        assert block.context in ("", "checkout", "own-data", "demo", "repro", "prefect", "contributing"), block.location
        assert block.commands, block.location


def test_links_of_pages_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


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
