"""Benchmarks are not run here, but each must start: its imports work and it prints its usage."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

NAMES = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text())
START = """
import contextlib, io, json, runpy, sys, traceback
sys.path.insert(0, "benchmarks")
results = {}
for name in sys.argv[1:]:
    sys.argv, output, code = [name, "--help"], io.StringIO(), None
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path(f"benchmarks/{name}.py", run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        output.write(traceback.format_exc())
    results[name] = code, output.getvalue()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[int | None, str]]:
    """Exit code and output of each benchmark with --help; one process starts them all, since most import torch."""
    command = [sys.executable, "-c", START, *NAMES]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_starts(name, results):
    code, output = results[name]
    assert code == 0 and output.startswith("usage:"), output
