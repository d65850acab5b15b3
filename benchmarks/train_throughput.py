"""Compare the training loop of segpipe with other loops on the same network, batches and data, in images per second.

    python benchmarks/train_throughput.py [--family unet --encoder resnet34 --patch 256 --batch 8 --steps 20]
    python benchmarks/train_throughput.py --family mask_rcnn --batch 4
    python benchmarks/train_throughput.py --family unet3d --patch 32 --batch 2

- plain: a short script: eager float32, contiguous memory, AdamW, batches prepared in the same process.
- lightning: a Lightning Trainer with the model and loss of SMP, as in its tutorials (float32, defaults), batches from a worker process.
  Only for 2D networks, and only if `lightning` is installed: uv pip install lightning (it shares files with lightning-fabric: after
  removing it, uv pip install --reinstall lightning-fabric).
- by hand: the best setting that `plan` found, in a bare loop: autocast, memory format, fused AdamW, an allocator that keeps its pages,
  batches from a worker process; no gradient clipping, no running average of weights, no logging.
- segpipe: the step, the batches and the setting that `plan` measures and `train` uses.

All loops use the same crops of the same generated images, the loss of the plan (all but segpipe: with functions of torch and SMP), Adam
or AdamW, and the same network with the same weights (all but segpipe: with the original blocks of SMP and torchvision). They take turns,
each in a separate process, and the best turn counts, so that a busy moment of the machine does not change the result.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from scenes import Cells, fingerprint_of

from segpipe.config import Params

Run = Callable[[Any, Cells, int], float]
"""``run(plan, reader, steps)`` returns images per second, after two warm-up steps."""


def make_plan(arguments: argparse.Namespace, reader: Cells) -> Any:
    """Return the plan that `segpipe plan` would write."""
    from segpipe.training.planning.planner import plan_on

    volumes = reader[0].image.ndim == 4
    encoder = {} if volumes else {"encoder": arguments.encoder, "encoder_weights": "none"}
    train = {"budget": "600 steps", "batch": arguments.batch, "optimizer": "adamw"} | (
        {} if volumes else {"patch": arguments.patch}
    )
    params = Params.model_validate({"train": train, "candidates": {"bench": {"family": arguments.family} | encoder}})
    return plan_on("bench", params, fingerprint_of(reader), reader, reader)


class Timer:
    """Measures images per second; the first two steps are a warm-up."""

    def __init__(self, plan: Any) -> None:
        self.device, self.batch, self.seen = plan.execution.machine.device, plan.recipe.batch, 0

    def step(self) -> None:
        from segpipe.training.machine import synchronize

        self.seen += 1
        if self.seen == 2:
            synchronize(self.device)
            self.began = time.perf_counter()

    def rate(self) -> float:
        from segpipe.training.machine import synchronize

        synchronize(self.device)
        return (self.seen - 2) * self.batch / (time.perf_counter() - self.began)


def run_segpipe(plan: Any, reader: Cells, steps: int) -> float:
    from segpipe.training.sampling.crops import batches
    from segpipe.training.step import build_stepper
    from segpipe.training.tasks import samples_of

    stepper, timer = build_stepper(plan), Timer(plan)
    stream = batches(samples_of(reader, plan), plan.recipe, plan.execution.workers, 0, steps + 2)
    for number, (images, labels) in enumerate(stream):
        stepper.step(number, images, labels, plan.seed)
        timer.step()
    return timer.rate()


def run_plain(plan: Any, reader: Cells, steps: int) -> float:
    import torch

    network, timer = new_network(plan), Timer(plan)
    network.to(timer.device).train()
    optimizer, cost = torch.optim.AdamW(network.parameters(), lr=1e-3), textbook_loss(plan)
    for images, labels in stream_of(plan, reader, 0, steps):
        loss = cost(network, images.to(timer.device), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        timer.step()
    return timer.rate()


def run_by_hand(plan: Any, reader: Cells, steps: int) -> float:
    import torch

    from segpipe.training.step import configure_process

    configure_process(plan.execution.machine.threads)
    setting, timer, cost = plan.execution.setting, Timer(plan), textbook_loss(plan)
    last = torch.channels_last_3d if plan.volume else torch.channels_last
    memory_format = last if setting.channels_last else torch.contiguous_format
    network = new_network(plan).to(timer.device).to(memory_format=memory_format).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    for images, labels in stream_of(plan, reader, plan.execution.workers, steps):
        with torch.autocast(timer.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = cost(network, images.to(timer.device, memory_format=memory_format), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        timer.step()
    return timer.rate()


def run_lightning(plan: Any, reader: Cells, steps: int) -> float:
    import warnings

    import lightning  # type: ignore[import-not-found]
    import torch

    network, timer, cost = new_network(plan), Timer(plan), textbook_loss(plan)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Any, _: int) -> Any:
            loss = cost(self.network, *batch)
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            timer.step()

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    warnings.simplefilter("ignore")
    trainer = lightning.Trainer(
        max_steps=steps + 2,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        accelerator="gpu" if timer.device == "cuda" else "cpu",
        devices=1,
        enable_progress_bar=False,
    )
    trainer.fit(Module(), stream_of(plan, reader, plan.execution.workers, steps))
    return timer.rate()


def new_network(plan: Any) -> Any:
    """Build the network of the plan with the original blocks of SMP and torchvision, without segpipe's faster versions."""
    from segpipe.models.registry import build_network
    from segpipe.ops import feature_pyramid, fused_upsample, mask_predictor, proposal_head, roi_align

    config = plan.model_family.config.model_validate(plan.options)
    network = build_network(plan.family, config, plan.normalisation.channels, plan.outputs.channels, plan.seed)
    faster_modules = {
        part.__name__ for part in (fused_upsample, mask_predictor, feature_pyramid, roi_align, proposal_head)
    }
    for module in network.modules():
        if type(module).__module__ in faster_modules:
            module.__class__ = type(module).__base__  # type: ignore[assignment]
    return network


def stream_of(plan: Any, reader: Cells, workers: int, steps: int) -> Any:
    from segpipe.training.sampling.crops import batches
    from segpipe.training.tasks import samples_of

    return batches(samples_of(reader, plan), plan.recipe, workers, 0, steps + 2)


def textbook_loss(plan: Any) -> Callable[..., Any]:
    """Return cross entropy and Dice of torch and SMP; for a detector, the losses of torchvision."""
    import segmentation_models_pytorch as smp
    import torch

    from segpipe.training.tasks import objective_of

    device = torch.device(plan.execution.machine.device)
    if plan.model_family.kind == "detector":
        objective = objective_of(plan.model_family, plan.recipe, device)
        return lambda network, images, targets: objective(network, (images, targets), device)
    weight = torch.tensor(plan.recipe.class_weights, device=device)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)

    def cost(network: Any, images: Any, labels: Any) -> Any:
        logits, truth = network(images), labels.to(device).long()
        entropy = torch.nn.functional.cross_entropy(logits, truth, weight, ignore_index=255)
        return entropy + 0.5 * dice(logits.flatten(3), truth.flatten(2))

    return cost


LOOPS: dict[str, tuple[Run, float]] = {
    "plain": (run_plain, 1 / 3),
    "lightning": (run_lightning, 1 / 3),
    "by hand": (run_by_hand, 1.0),
    "segpipe": (run_segpipe, 1.0),
}
"""By name: the loop, and the share of the steps that it runs (slow loops need fewer steps for a stable result)."""


def main() -> None:
    """Measure, and print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="unet")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--patch", type=int, default=256, help="edge of a crop; for volumes, of the whole volume")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="timed steps per turn (a third for the slow loops)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from segpipe.models.registry import get_family

    volumes = get_family(arguments.family).dims == 3
    reader = Cells(12, (arguments.patch,) * 3) if volumes else Cells(24, (max(arguments.patch, 320),) * 2)
    if arguments.child:
        from segpipe.training.plan import NetworkPlan

        job = json.loads(arguments.child)
        print(json.dumps(LOOPS[job["loop"]][0](NetworkPlan.model_validate(job["plan"]), reader, job["steps"])))
        return
    plan = make_plan(arguments, reader)
    loops = [name for name in arguments.loops if name != "lightning" or can_lightning(plan)]
    machine = plan.execution.machine
    patch = " x ".join(map(str, plan.volume.patch)) if volumes else f"{plan.recipe.patch} x {plan.recipe.patch}"
    name = arguments.family if volumes else f"{arguments.family} {arguments.encoder}"
    print(f"{name}, {plan.recipe.batch} x {patch}, {machine.processor}, {machine.threads} threads")
    print(f"measured setting: {plan.execution.setting}")
    best: dict[str, float] = {}
    for turn in range(arguments.turns):
        for loop in loops:
            steps = max(3, round(arguments.steps * LOOPS[loop][1]))
            job = json.dumps({"loop": loop, "plan": plan.model_dump(mode="json"), "steps": steps})
            command = [
                sys.executable,
                __file__,
                "--family",
                arguments.family,
                "--patch",
                str(arguments.patch),
                "--child",
                job,
            ]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rate = float(json.loads(result.stdout.splitlines()[-1]))
            best[loop] = max(best.get(loop, 0.0), rate)
            print(f"turn {turn + 1}  {loop:<10} {rate:7.2f} images/s", flush=True)
    for loop in loops:
        print(f"{loop:<10} {best[loop]:7.2f} images/s; segpipe is {best['segpipe'] / best[loop]:.2f} times as fast")


def can_lightning(plan: Any) -> bool:
    """Return whether the Lightning loop can run: it is written for 2D networks, and its package is not a dependency of segpipe."""
    return importlib.util.find_spec("lightning") is not None and plan.model_family.kind == "network" and not plan.volume


if __name__ == "__main__":
    main()
