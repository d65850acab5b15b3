"""Measure the test scores that segpipe's defaults reach on real datasets within a budget.

    python benchmarks/time_to_quality.py ../shared/data --budget 10m --only camvid nuclei --work /tmp/quality
    python benchmarks/time_to_quality.py ../shared/data --candidates fpn=fpn --seeds 0 1 2 --only camvid --against tutorial bare

Only the budget and the seed are set (and, with --candidates, the families). Planning and compiling count: the table shows the seconds of
`segpipe plan` and `segpipe train` together. Results that are in the work folder are not computed again. --against also trains the
scripts of `by_hand.py` for the same time on the same images; they need colour images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from by_hand import RECIPES

from segpipe.config import load_params, parse_budget
from segpipe.workspace import pipeline
from segpipe.workspace.create import create_workspace
from segpipe.workspace.params_file import set_params

CAMVID = "Sky,Building,Pole,Road,Pavement,Tree,SignSymbol,Fence,Car,Pedestrian,Bicyclist"
DATASETS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "camvid": ("camvid", ["--classes", CAMVID, "--ignore", "11"], {}),
    "nuclei": ("nuclei", [], {}),
    "wbc": ("wbc/dataset1", ["--classes", "background,cytoplasm,nucleus"], {"validate.quarantine": True}),
    "em_membranes": ("em_membranes", ["--classes", "cell=255,membrane=0"], {"split.method": "ranges"}),
    "hippocampus": ("hippocampus", ["--classes", "background,anterior,posterior"], {}),
}
"""By name: the path in the data folder, the import options, and the settings that its README asks for."""
_DATA_STAGES = ("ingest", "validate", "prepare")


def segpipe(root: Path, *arguments: str) -> float:
    """Run a command in a workspace and return the seconds that it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "segpipe.cli.main", "-C", str(root), *arguments]
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"segpipe {' '.join(arguments)} exited with {result.returncode}: {result.stderr[-2000:]}")
    return time.perf_counter() - start


def prepare(root: Path, data: Path, name: str, budget: str, seed: int, candidates: dict[str, str]) -> None:
    """Create a workspace with a dataset and run the stages up to its shards."""
    folder, options, settings = DATASETS[name]
    create_workspace(root)
    segpipe(root, "data", "import", str((data / folder).resolve()), *options)
    changes = settings | {"train.budget": budget, "train.seed": seed}
    if candidates:
        changes["candidates"] = {candidate: {"family": family} for candidate, family in candidates.items()}
    set_params(root, changes)
    for stage in _DATA_STAGES:
        segpipe(root, stage)


def measure(root: Path, candidate: str) -> dict[str, Any]:
    """Train and score a candidate, or read the result of an earlier run of this benchmark."""
    path = root / "quality" / f"{candidate}.json"
    if not path.exists():
        seconds = segpipe(root, "plan", candidate) + segpipe(root, "train", candidate)
        segpipe(root, "evaluate", candidate)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"seconds": round(seconds, 1)}))
    test = json.loads((root / "evaluation" / candidate / "metrics.json").read_text())["test"]
    metrics = {
        "iou": ("iou", "dataset.macro"),
        "dice": ("dice", "dataset.macro"),
        "image dice": ("dice", "image.macro"),
    }
    scores = {short: test[ratio].get(rest) or nested(test[ratio], rest) for short, (ratio, rest) in metrics.items()}
    instances = {key: test["instance"][key] for key in ("ap50", "f1_50") if key in test.get("instance", {})}
    return json.loads(path.read_text()) | scores | instances


def measure_by_hand(root: Path, recipe: str, budget: str, seed: int) -> dict[str, Any]:
    """Train and score a script for the same time, or read the result of an earlier run of this benchmark."""
    path = root / "quality" / f"by-hand-{recipe}.json"
    if not path.exists():
        kind, amount = parse_budget(budget)
        if kind != "seconds":
            raise SystemExit("--against needs a budget in seconds, minutes or hours")
        script = [sys.executable, str(Path(__file__).with_name("by_hand.py")), str(root), recipe]
        process = subprocess.run(
            [*script, "--seconds", str(amount), "--seed", str(seed)], check=True, stdout=subprocess.PIPE, text=True
        )
        path.write_text(process.stdout.splitlines()[-1])
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def nested(table: dict[str, Any], path: str) -> Any:
    """Return a value of metrics.json by its dotted name."""
    value: Any = table
    for part in path.split("."):
        value = value[part]
    return value


def main() -> None:
    """Measure, and print a line for each dataset, seed and candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the datasets")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--candidates", nargs="*", default=[], help="NAME=FAMILY, instead of the defaults", metavar="C")
    parser.add_argument("--against", nargs="*", choices=RECIPES, default=[])
    parser.add_argument("--work", type=Path, default=Path("quality"))
    arguments = parser.parse_args()
    candidates = dict(item.split("=", 1) for item in arguments.candidates)
    for name in arguments.only:
        for seed in arguments.seeds:
            root = arguments.work / f"{name}-{seed}"
            if not (root / pipeline.PIPELINE_FILE).exists() or not (root / "artifacts" / "splits.parquet").exists():
                prepare(root, arguments.data, name, arguments.budget, seed, candidates)
            for candidate in load_params(root).candidates:
                print_row(name, seed, candidate, measure(root, candidate))
            for recipe in arguments.against:
                print_row(name, seed, f"{recipe}, by hand", measure_by_hand(root, recipe, arguments.budget, seed))


def print_row(dataset: str, seed: int, model: str, scores: dict[str, Any]) -> None:
    """Print a line of the table."""
    values = "  ".join(f"{key} {value:.4g}" for key, value in scores.items())
    print(f"{dataset:<13} seed {seed}  {model:<16} {values}", flush=True)


if __name__ == "__main__":
    main()
