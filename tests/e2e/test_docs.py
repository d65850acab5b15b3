"""Every command in README.md, CONTRIBUTING.md and docs/ is run, as it stands, in the order of its page.

The one liberty: where a page trains, params.yaml is cut to a few steps of one network, and the gates are switched off.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from tests.e2e.commands import all_blocks
from tests.e2e.conftest import BIN, ROOT

BLOCKS = all_blocks(ROOT)
ENDS_IN_SECONDS = ("git", "gto", "dvc", "segpipe", "curl", "cd", "python", "pytest", "ruff", "prefect", "make")


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


def test_contributing_commands_name_what_is_there():
    for block in BLOCKS:
        if block.context == "contributing":
            for command in block.commands:
                program, *words = shlex.split(command)
                assert program in ENDS_IN_SECONDS, command
                for word in words:
                    if "/" in word and not word.startswith(("-", "../")):
                        assert (ROOT / word).exists(), f"{command}: {word}"


def test_the_shell_is_the_environments_own():
    assert subprocess.run(
        ["bash", "-c", "command -v segpipe"], env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}, check=True
    )
