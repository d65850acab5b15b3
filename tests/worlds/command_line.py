"""Calls of the command line in the test's own process."""

from __future__ import annotations

import sys

import pytest

from segpipe.cli.main import main


def call_command(capsys, monkeypatch, *arguments):
    """Run `segpipe ARGUMENTS` in this process, and return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["segpipe", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err
