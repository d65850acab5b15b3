"""What orchestration costs: `segpipe run` against the sum of the seconds that the stages' own commands took in the same run.

    python benchmarks/orchestration.py               # the demo data and the settings of `segpipe demo`
    python benchmarks/orchestration.py my-cells      # a workspace of yours: all its stages are run again, in a copy

A command's own seconds run from the start of its process to its end: Python, imports, work. All else is overhead: Prefect and its
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
    """A workspace whose stages are all to be run: the demo's, or a copy of one without its results."""
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
    # a gate that nothing passes: the run ends with the last stage, and what is measured is stages alone
    set_params(root, {"gates.floor.at_least": 1.01})
    pipeline.add_data(root)


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", nargs="?", type=Path)
    parser.add_argument("--budget", help="train.budget, for each candidate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segpipe-orchestration-") as folder:
        root = Path(folder) / "workspace"
        prepare(arguments.workspace, root, arguments.budget)
        began = time.perf_counter()
        command = [sys.executable, "-m", "segpipe.cli.main", "run", "--json"]
        done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
        wall = time.perf_counter() - began
        if done.returncode not in (0, 4):
            raise SystemExit(f"segpipe run ended with {done.returncode}")
        ran = json.loads(done.stdout)["ran"]
        outcomes = (root / STATE_DIR / "outcomes" / f"{name}.json" for name in ran)
        own = sum(json.loads(path.read_text())["seconds"] for path in outcomes)
    print(
        json.dumps(
            {
                "stages": len(ran),
                "run_s": round(wall, 1),
                "commands_s": round(own, 1),
                "dvc_s": round(sum(ran.values()) - own, 1),
                "overhead": f"{wall / own - 1:.1%}",
                "overhead_per_stage_s": round((wall - own) / len(ran), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
