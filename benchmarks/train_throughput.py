"""Images a second of the train stage's own loop against a plain loop of the same network, batch and data.

    python benchmarks/train_throughput.py [--family unet --encoder tf_efficientnet_lite0 --patch 256 --batch 8 --steps 20]

Plain: eager float32, contiguous, AdamW, cross entropy and Dice from segmentation_models_pytorch, batches made in the same
process: what a short script does. segpipe: the step, the batches and the setting that `plan` measures and `train` runs.
Both see the same crops of the same generated images. They take turns, each in a process of its own (segpipe sets up its
process, which must not help the other), and the best of the turns counts, so that a busy moment of the machine hurts neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from segpipe.config import Params
from segpipe.data.manifest import Fingerprint
from segpipe.samples import ClassTable, Sample

CLASSES = ClassTable.from_names(["background", "cytoplasm", "nucleus"])


class Cells:
    """Random discs on noise, in memory, behind the interface of a shard reader."""

    def __init__(self, count: int, edge: int) -> None:
        self.samples = [self._draw(np.random.default_rng(i), edge, i) for i in range(count)]
        self.class_pixels = np.array([np.bincount(s.labels.ravel(), minlength=3) for s in self.samples])

    @staticmethod
    def _draw(rng: np.random.Generator, edge: int, index: int) -> Sample:
        labels = np.zeros((edge, edge), np.uint8)
        rows, columns = np.mgrid[:edge, :edge]
        for y, x in rng.integers(0, edge, (30, 2)):
            distance = (rows - y) ** 2 + (columns - x) ** 2
            labels[distance < 500] = 1
            labels[distance < 120] = 2
        tone = np.array([[220, 210, 225], [190, 120, 170], [90, 60, 140]])[labels]
        return Sample(str(index), np.clip(tone + rng.normal(0, 12, tone.shape), 0, 255).astype(np.uint8), labels)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def make_fingerprint(reader: Cells) -> Fingerprint:
    """What `ingest` would say of the cells."""
    edge = reader[0].image.shape[0]
    size = {"min": edge, "median": edge, "max": edge}
    counts = dict.fromkeys(("train", "val", "test"), reader.class_pixels.sum(0).tolist())
    return Fingerprint.model_validate(
        {
            "data_hash": "generated", "classes": CLASSES, "n_images": dict.fromkeys(counts, len(reader)), "channels": 3,
            "dtype": "uint8", "height": size, "width": size, "class_pixels": counts, "ignored_pixels": dict.fromkeys(counts, 0),
            "low": [0.0] * 3, "high": [255.0] * 3, "mean": [128.0] * 3, "std": [64.0] * 3, "groups": 0, "instances": False,
        }
    )  # fmt: skip


def make_plan(arguments: argparse.Namespace, reader: Cells) -> Any:
    """The plan that `segpipe plan` would make."""
    from segpipe.training.planner import plan_on

    candidate = {"family": arguments.family, "encoder": arguments.encoder, "encoder_weights": "none"}
    train = {"budget": "600 steps", "patch": arguments.patch, "batch": arguments.batch}
    params = Params.model_validate({"train": train, "candidates": {"bench": candidate}})
    return plan_on("bench", params, make_fingerprint(reader), reader, reader)


def run_segpipe(plan: Any, reader: Cells, steps: int) -> float:
    """Images a second of the stage's loop, after two steps to get going."""
    from segpipe.training.batches import Crops, batches
    from segpipe.training.loop import set_up
    from segpipe.training.machine import wait

    stepper = set_up(plan)
    stream = batches(Crops(reader, plan), plan.recipe, plan.execution.workers, 0, steps + 2)
    for number, (images, labels) in enumerate(stream):
        stepper.step(number, images, labels, plan.seed)
        if number == 1:
            wait(plan.execution.machine.device)
            began = time.perf_counter()
    wait(plan.execution.machine.device)
    return steps * plan.recipe.batch / (time.perf_counter() - began)


def run_plain(plan: Any, reader: Cells, steps: int) -> float:
    """Images a second of the plain loop, after two steps to get going."""
    import segmentation_models_pytorch as smp
    import torch

    from segpipe.models.registry import build_network
    from segpipe.training.batches import Crops, batches
    from segpipe.training.machine import wait

    device = plan.execution.machine.device
    config = plan.of.config.model_validate(plan.options)
    network = build_network(plan.family, config, 3, plan.classes, plan.seed).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    weight = torch.tensor(plan.recipe.class_weights, device=device)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)
    for number, (images, labels) in enumerate(batches(Crops(reader, plan), plan.recipe, 0, 0, steps + 2)):
        logits, truth = network(images.to(device)), labels.to(device).long()
        loss = torch.nn.functional.cross_entropy(logits, truth, weight, ignore_index=255) + 0.5 * dice(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number == 1:
            wait(device)
            began = time.perf_counter()
    wait(device)
    return steps * plan.recipe.batch / (time.perf_counter() - began)


def main() -> None:
    """Measure, print a table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="unet")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--steps", type=int, default=20, help="timed steps of each turn (a third of them for the plain loop)"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    reader = Cells(24, max(arguments.patch, 320))
    if arguments.child:
        from segpipe.training.plan import Plan

        job = json.loads(arguments.child)
        run = run_segpipe if job["kind"] == "segpipe" else run_plain
        print(json.dumps(run(Plan.model_validate(job["plan"]), reader, job["steps"])))
        return
    plan = make_plan(arguments, reader)
    machine = plan.execution.machine
    size = f"{arguments.batch} x {arguments.patch} x {arguments.patch}"
    print(f"{arguments.family} {arguments.encoder}, {size}, {machine.processor}, {machine.threads} threads")
    print(f"measured setting: {plan.execution.setting}")
    best: dict[str, float] = {}
    for turn in range(arguments.turns):
        for kind, steps in (("plain", max(3, arguments.steps // 3)), ("segpipe", arguments.steps)):
            job = json.dumps({"kind": kind, "plan": plan.model_dump(mode="json"), "steps": steps})
            command = [sys.executable, __file__, "--patch", str(arguments.patch), "--child", job]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rate = float(json.loads(done.stdout.splitlines()[-1]))
            best[kind] = max(best.get(kind, 0.0), rate)
            print(f"turn {turn + 1}  {kind:<8} {rate:6.1f} images/s", flush=True)
    print(
        f"segpipe {best['segpipe']:.1f} images/s, plain {best['plain']:.1f} images/s: {best['segpipe'] / best['plain']:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
