"""Measure what short budgets buy: steps, the share of the budget that was steps, and the score on test images.

    python benchmarks/short_budgets.py ../shared/data --budgets 30s 1m 2m 5m --seeds 0 1 --work /tmp/budgets
    python benchmarks/short_budgets.py ../shared/data --only camvid --tree before=/tmp/old-checkout --tree after=.

Each line is one training of the default U-Net: seconds of `segpipe plan` and of `segpipe train`, both with the start of Python; the
seconds after the last step, last validation included; and the share of the budget that planning and these seconds took, which is to be
15 % or less from a minute on. `--tree` compares checkouts in turns, with the same environment of Python. With `--speeds known`, each
plan is made twice, and the second one, which knows the speeds, counts. Times are worth little while other work runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from time_to_quality import DATASETS, prepare

from segpipe.config import parse_budget
from segpipe.workspace.params_file import set_params

CANDIDATE = "unet"
OPTIONS = {"family": "unet", "encoder": "tf_efficientnet_lite0", "encoder_weights": "auto"}
_NOT_STEPS = ("validation", "checkpoints")
"""Rows of bottleneck.json that are not parts of a step."""


@dataclass(frozen=True)
class Run:
    """One training within a budget."""

    tree: str
    dataset: str
    budget: str
    seed: int
    plan_s: float
    train_s: float
    after_s: float
    """From the last step to the end of the command."""
    steps: int
    steps_s: float
    val_images: int | None
    """Validation images that were used; None: all."""
    score: float
    """Macro IoU on the test split."""

    def line(self) -> str:
        """Return the line of the table."""
        seconds = parse_budget(self.budget)[1]
        shares = (self.steps_s, self.plan_s + self.after_s, self.plan_s + self.train_s)
        values = "".join(f"{value / seconds:>10.0%}" for value in shares)
        return (
            f"{self.tree:<9}{self.dataset:<10}{self.budget:>6}{self.seed:>5}{self.plan_s:>8.1f}{self.train_s:>8.1f}"
            f"{self.after_s:>8.1f}{self.steps:>7}{values}{self.val_images or 'all':>7}{self.score:>9.4f}"
        )


HEADER = (
    f"{'':<9}{'dataset':<10}{'budget':>6}{'seed':>5}{'plan s':>8}{'train s':>8}{'after s':>8}{'steps':>7}{'in steps':>10}"
    f"{'overhead':>10}{'of budget':>10}{'val':>7}{'test IoU':>9}"
)


def segpipe(tree: Path, root: Path, speeds: Path, *arguments: str) -> float:
    """Run a command of a checkout in a workspace and return the seconds that it took.

    Args:
        tree: the checkout.
        root: the workspace.
        speeds: the cache of speeds.
        *arguments: the command.
    """
    environment = os.environ | {"PYTHONPATH": str(tree.resolve()), "SEGPIPE_SPEED_CACHE": str(speeds.resolve())}
    command = [sys.executable, "-m", "segpipe.cli.main", "-C", str(root), *arguments]
    start = time.perf_counter()
    result = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"segpipe {' '.join(arguments)} exited with {result.returncode}: {result.stderr[-2000:]}")
    return time.perf_counter() - start


def measure(tree: tuple[str, Path], dataset: str, prepared: Path, budget: str, seed: int, known: bool) -> Run:
    """Plan, train and evaluate in a copy of a prepared workspace, or read the result of an earlier run of this benchmark.

    Args:
        tree: name and folder of the checkout.
        dataset: name of the dataset.
        prepared: the workspace with its shards.
        budget: the budget.
        seed: the seed of the training.
        known: whether the speeds are known from an earlier plan.
    """
    name, folder = tree
    root = prepared.with_name(f"{prepared.name}-{name}-{budget}-{seed}-{'known' if known else 'new'}")
    path, speeds = root / "run.json", root / "speeds"
    if path.exists():
        return Run(**json.loads(path.read_text()))
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(prepared, root, symlinks=True)
    set_params(root, {"train.budget": budget, "train.seed": seed})
    if known:
        segpipe(folder, root, speeds, "plan", CANDIDATE)
    plan_s = segpipe(folder, root, speeds, "plan", CANDIDATE)
    train_s = segpipe(folder, root, speeds, "train", CANDIDATE)
    end = time.time()
    segpipe(folder, root, speeds, "evaluate", CANDIDATE)
    bottleneck = root / "training" / CANDIDATE / "bottleneck.json"
    recipe = json.loads((root / "plans" / f"{CANDIDATE}.json").read_text())["recipe"]
    ms = {row["part"]: row["ms"] for row in json.loads(bottleneck.read_text())}
    validations = -(-recipe["steps"] // recipe["val_every"])
    run = Run(
        tree=name,
        dataset=dataset,
        budget=budget,
        seed=seed,
        plan_s=plan_s,
        train_s=train_s,
        # The table of parts is written after the last validation.
        after_s=end - bottleneck.stat().st_mtime + ms["validation"] * recipe["steps"] / 1000 / validations,
        steps=recipe["steps"],
        steps_s=sum(value for part, value in ms.items() if part not in _NOT_STEPS) * recipe["steps"] / 1000,
        val_images=recipe.get("val_images"),
        score=test_score(root),
    )
    path.write_text(json.dumps(run.__dict__))
    return run


def test_score(root: Path) -> float:
    """Return the macro IoU on the test split."""
    test: dict[str, Any] = json.loads((root / "evaluation" / CANDIDATE / "metrics.json").read_text())["test"]
    table = test["iou"]
    return float(table["dataset.macro"] if "dataset.macro" in table else table["dataset"]["macro"])


def main() -> None:
    """Measure, and print a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the datasets")
    parser.add_argument("--budgets", nargs="+", default=["30s", "1m", "2m", "5m"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=DATASETS, default=["camvid", "nuclei", "wbc"])
    parser.add_argument("--tree", action="append", default=[], help="NAME=CHECKOUT; by default this one", metavar="T")
    parser.add_argument("--speeds", choices=("new", "known"), default="new", help="known: from an earlier plan")
    parser.add_argument("--work", type=Path, default=Path("budgets"))
    arguments = parser.parse_args()
    default = f"this={Path(__file__).resolve().parents[1]}"
    trees = [(name, Path(folder)) for name, _, folder in (t.partition("=") for t in arguments.tree or [default])]
    print(HEADER, flush=True)
    for dataset in arguments.only:
        prepared = arguments.work / dataset
        if not (prepared / "artifacts" / "splits.parquet").exists():
            shutil.rmtree(prepared, ignore_errors=True)
            prepare(prepared, arguments.data, dataset, "1m", 0, {CANDIDATE: OPTIONS["family"]})
            set_params(prepared, {"candidates": {CANDIDATE: OPTIONS}})
        for budget in arguments.budgets:
            for seed in arguments.seeds:
                for tree in trees:
                    run = measure(tree, dataset, prepared, budget, seed, arguments.speeds == "known")
                    print(run.line(), flush=True)


if __name__ == "__main__":
    main()
