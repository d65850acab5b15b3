"""A plugin of pytest (`-p tests.longest_first`) that starts the longest files first, so that no process ends with one of them alone.

With `--no-loadscope-reorder`, pytest-xdist hands files out in this order.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LONGEST = (
    "tests/e2e/test_demo.py",
    "tests/e2e/test_apart.py",
    "tests/models/test_contract.py",
    "tests/training/distributed/test_process_group.py",
    "tests/flows/test_retrain.py",
    "tests/training/test_kills.py",
    "tests/flows/test_deployment.py",
    "tests/validation/test_expectations.py",
    "tests/training/test_train.py",
    "tests/training/planning/test_planner.py",
    "tests/models/weights/test_encoder_weights.py",
    "tests/release/export/test_bundle_export.py",
    "tests/training/planning/test_budget.py",
    "tests/workspace/execution/test_runner.py",
    "tests/metrics/test_against_oracles.py",
    "tests/validation/test_drift.py",
    "tests/training/planning/test_lr_finder.py",
    "tests/browser/test_report.py",
    "tests/workspace/test_pipeline.py",
    "tests/training/optim/test_optimisers.py",
)
"""Files whose slow tests take more than a minute of processor time; then those whose quick tests take more than five seconds."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Move the tests of these files to the front; the others keep their order."""
    if missing := [name for name in LONGEST if not (Path(config.rootpath) / name).exists()]:
        raise pytest.UsageError(f"tests/longest_first.py: no such file (found {', '.join(missing)})")
    rank = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.location[0], len(rank)))
