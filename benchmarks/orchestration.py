"""Measure the overhead of orchestration: the time of `segpipe run` compared with the sum of the times of the stages' commands.

    python benchmarks/orchestration.py               # the demo data and the settings of `segpipe demo`
    python benchmarks/orchestration.py my-cells      # your workspace: all its stages are run again, in a copy

The time of a command is that of its process, from start to end: Python, imports, work. Everything else is overhead: Prefect and its
server, DVC's process around each stage (hashing, caching, dvc.lock), and the scheduler. Packaging and release are switched off.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from segpipe.cli.start.demo import BUDGETS
from segpipe.workspace import pipeline
from segpipe.workspace.create import create_workspace
from segpipe.workspace.params_file import set_params
from segpipe.workspace.paths import STATE_DIR


def prepare(source: Path | None, root: Path, budget: str | None) -> None:
    """Create a workspace whose stages are all stale: the demo, or a copy of `source` without its results."""
    create_workspace(root)
    if source is None:
        from segpipe.data.demo.write import write_demo

        write_demo(root / "data")
        set_params(root, {"train.budget": budget or BUDGETS[0]})
    else:
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(source / name, root / name)
        shutil.copytree(source / "data", root / "data")
        if budget:
            set_params(root, {"train.budget": budget})
    # a gate that no candidate passes: the run ends after the last stage
    set_params(root, {"gates.floor.at_least": 1.0})
    pipeline.add_data(root)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", nargs="?", type=Path)
    parser.add_argument("--budget", help="train.budget, for each candidate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segpipe-orchestration-") as folder:
        root = Path(folder) / "workspace"
        prepare(arguments.workspace, root, arguments.budget)
        start = time.perf_counter()
        command = [sys.executable, "-m", "segpipe.cli.main", "run", "--json"]
        result = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
        wall_s = time.perf_counter() - start
        if result.returncode not in (0, 4):
            raise SystemExit(f"segpipe run exited with {result.returncode}")
        ran = json.loads(result.stdout)["ran"]
        outcomes = (root / STATE_DIR / "outcomes" / f"{name}.json" for name in ran)
        commands_s = sum(json.loads(path.read_text())["seconds"] for path in outcomes)
    print(
        json.dumps(
            {
                "stages": len(ran),
                "run_s": round(wall_s, 1),
                "commands_s": round(commands_s, 1),
                "dvc_s": round(sum(ran.values()) - commands_s, 1),
                "overhead": f"{wall_s / commands_s - 1:.1%}",
                "overhead_per_stage_s": round((wall_s - commands_s) / len(ran), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
