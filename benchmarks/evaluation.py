"""Speed of `segpipe evaluate`, compared with torch in float32, image by image, which it is checked against.

    python benchmarks/evaluation.py WORKSPACE CANDIDATE [--runs 3]     a trained candidate, for example of `segpipe demo`
    python benchmarks/evaluation.py --families                         one prediction of each family of networks, random weights

The first form runs both in turn, each in a new process, and prints wall-clock and processor seconds with start and imports, their ratio,
and the largest difference of a score. The second form prints processor milliseconds on one thread, which other programs on the machine
hardly disturb, and the largest difference of a probability.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

_ON_TORCH = """
from segpipe.inference import scoring
from segpipe.inference.engines import checked_graph
scoring.on_graph = checked_graph.on_graph = lambda trained, *_, **__: trained
"""
_EVALUATE = """
from pathlib import Path
{before}
from segpipe import stages
stages.evaluate(Path({workspace!r}), {candidate!r})
"""
SETTINGS = {"segpipe": "", "torch": _ON_TORCH}
EDGE, WINDOW = 256, (32, 64, 64)
_IDENTITY = {"low": 0.0, "high": 1.0, "mean": 0.0, "std": 1.0}


def evaluate(workspace: Path, candidate: str, before: str) -> tuple[float, float]:
    """Evaluate a candidate in a new process; return its wall-clock and processor seconds."""
    code = _EVALUATE.format(before=before, workspace=str(workspace), candidate=candidate)
    start, times = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.children_user - times.children_user + after.children_system - times.children_system


def leaves(content: Any, name: str = "") -> dict[str, float]:
    """Return the numbers in metrics.json by name, without costs and the bins of calibration curves."""
    if isinstance(content, dict):
        parts = [leaves(content[key], f"{name}.{key}") for key in content if key not in ("cost", "curve", "engine")]
        return {key: value for part in parts for key, value in part.items()}
    return {name: float(content)}


def compare_evaluations(workspace: Path, candidate: str, runs: int) -> None:
    """Print the times of both ways to evaluate a candidate."""
    out = workspace / "evaluation" / candidate
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
    metrics: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(out, Path(folder) / "kept")
        try:
            for _ in range(runs):
                for name, before in SETTINGS.items():
                    seconds[name].append(evaluate(workspace, candidate, before))
                    metrics[name] = leaves(json.loads((out / "metrics.json").read_text()))
        finally:
            shutil.rmtree(out)
            shutil.copytree(Path(folder) / "kept", out)
    for name, rows in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:8} {wall:6.1f} s, of the processor {processor:6.1f} s")
    ratio = statistics.median(b[1] / a[1] for a, b in zip(seconds["segpipe"], seconds["torch"], strict=True))
    print(f"ratio of processor seconds: {ratio:.2f}")
    ours, theirs = metrics["segpipe"], metrics["torch"]
    largest = max(ours, key=lambda key: abs(ours[key] - theirs[key]))
    print(f"largest difference of {len(ours)} numbers: {abs(ours[largest] - theirs[largest]):.1g} ({largest[1:]})")


def compare_families() -> None:
    """Print the time of one prediction of each family of networks on torch and on the engine that scores it."""
    import numpy as np
    import torch

    from segpipe.inference.engines.checked_graph import on_graph
    from segpipe.inference.engines.engine import TorchEngine
    from segpipe.inference.preprocess import Normalisation
    from segpipe.inference.segmenter import Segmenter
    from segpipe.inference.spec import SegmenterSpec
    from segpipe.models.registry import FAMILIES, build_network
    from segpipe.samples import ClassTable

    torch.set_num_threads(1)
    print("| family | torch, ms | scored on | ms | ratio | largest difference |\n|---|---|---|---|---|---|")
    for family in FAMILIES.values():
        if family.kind != "network" or family.name == "custom":
            continue
        random_weights = {"encoder_weights": "none"} if "encoder_weights" in family.config.model_fields else {}
        channels = 1 if family.dims == 3 else 3
        network = build_network(family.name, family.config.model_validate(random_weights), channels, 3, 0).eval()
        spec = SegmenterSpec(
            candidate=family.name,
            family=family.name,
            classes=ClassTable.from_names(["background", "a", "b"]),
            normalisation=Normalisation(**{k: (v,) * channels for k, v in _IDENTITY.items()}),
            stride=family.stride,
            dims=family.dims or 2,
            patch3d=WINDOW if family.dims == 3 else None,
        )
        size = WINDOW if family.dims == 3 else (EDGE, EDGE)
        batch = np.random.default_rng(0).standard_normal((1, channels, *size)).astype(np.float32)
        trained = Segmenter(spec, TorchEngine(network))
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = on_graph(trained, Path(folder), threads=1, check=False)
        values = [spec.outputs.values(model.engine(batch)) for model in (trained, graph)]
        milliseconds = _milliseconds([trained, graph], batch)
        print(
            f"| {family.name} | {milliseconds[0]:.1f} | {graph.engine.name} | {milliseconds[1]:.1f} | "
            f"{milliseconds[0] / milliseconds[1]:.2f} | {np.abs(values[0] - values[1]).max():.1g} |",
            flush=True,
        )


def _milliseconds(models: list[Any], batch: Any, rounds: int = 5) -> list[float]:
    """Return the median processor time of a run of each network, in turn."""
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for model, row in zip(models, times, strict=True):
            start = time.process_time()
            model.engine(batch)
            row.append(1000 * (time.process_time() - start))
    return [statistics.median(row) for row in times]


def main() -> None:
    """Run the benchmark that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, nargs="?")
    parser.add_argument("candidate", nargs="?")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--families", action="store_true")
    arguments = parser.parse_args()
    if arguments.families:
        compare_families()
    elif arguments.workspace and arguments.candidate:
        compare_evaluations(arguments.workspace.resolve(), arguments.candidate, arguments.runs)
    else:
        parser.error("give a workspace and a candidate, or --families")


if __name__ == "__main__":
    main()
