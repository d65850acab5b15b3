"""One optimiser step, as `plan` times it, `train` runs it and the benchmark measures it."""

from __future__ import annotations

import copy
import ctypes
import logging
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segpipe.ops.depthwise import use_fast_depthwise
from segpipe.ops.group_norm import use_fast_group_norm
from segpipe.ops.instance_norm import use_fast_instance_norm
from segpipe.ops.upsampling import use_fast_upsampling
from segpipe.training.distributed.process_group import fabric_options
from segpipe.training.distributed.shared_dropout import images_on_all_ranks, share_dropout
from segpipe.training.distributed.synced_batch_norm import sync_batch_norm
from segpipe.training.distributed.unused_parameters import needs_search
from segpipe.training.machine import make_deterministic
from segpipe.training.optim.freezing import encoder_switch
from segpipe.training.optim.optimisers import RATE_FACTOR, build_optimiser
from segpipe.training.optim.schedules import learning_rate
from segpipe.training.plan import Recipe, StepSetting
from segpipe.training.sampling.batch_parts import split_batch
from segpipe.training.tasks import objective_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segpipe.models.registry import Family


def configure_process(threads: int) -> None:
    """Set up this process for training on the processor: a fixed number of threads, and an allocator that keeps its pages.

    A training step frees and takes again hundreds of MiB. By default glibc gives large blocks back to the system each
    time and pays for every page anew, which costs 10 to 25 % of a step; memory that is kept peaks no higher.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it; musl does not
        if mallopt is not None:
            m_trim_threshold, m_mmap_max = -1, -4
            mallopt(m_trim_threshold, 2**31 - 1)
            mallopt(m_mmap_max, 0)


def seed_step(seed: int, number: int) -> None:
    """Let the draws within a network follow from seed and step; in all processes alike (`shared_draws`)."""
    torch.manual_seed(((seed << 32) + number) % 2**63)


class Stepper:
    """A network, its objective, optimiser and running average, set up as a `Setting` says, on a device.

    `network` is changed in place. Nothing here waits for the device: `step` returns the loss as a tensor.
    """

    def __init__(self, network: torch.nn.Module, of: Family, recipe: Recipe, setting: StepSetting, device: str) -> None:
        from lightning_fabric import Fabric

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it announces stands in the plan
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # CUDA's tools without a GPU are no news
        self.recipe, self.setting = recipe, setting
        self.accumulate, self.least_batch = recipe.accumulate, of.least_batch
        # Of float16, small gradients would be 0: the loss is scaled up before the backward pass, and gradients down after it.
        self.scaler = torch.amp.GradScaler(device) if setting.precision == "fp16" else None
        self.fabric = Fabric(
            accelerator="cpu" if device == "cpu" else "gpu",
            **_precision(setting, device, self.scaler),
            **fabric_options(recipe.freeze_steps > 0 or needs_search(network)),
        )
        self.fabric.launch()
        if self.fabric.device.type == "cuda":
            make_deterministic()
        channels_last = torch.channels_last_3d if of.dims == 3 else torch.channels_last
        self.format = channels_last if setting.channels_last else torch.contiguous_format
        self.announce = share_dropout(network)
        self.network = sync_batch_norm(network, device).to(self.fabric.device).to(memory_format=self.format)
        if device == "cpu" and setting.precision == "bf16":
            use_fast_depthwise(self.network)
        if device == "cpu":
            use_fast_instance_norm(self.network)
            use_fast_group_norm(self.network)
            use_fast_upsampling(self.network)
        if setting.compile:
            self.network.compile(dynamic=False)  # crops of another size are compiled for by themselves
        self.objective = objective_of(of, recipe, self.fabric.device)
        optimiser = build_optimiser(self.network, recipe, half=setting.precision == "bf16")
        self.model, self.optimizer = self.fabric.setup(self.network, optimiser)
        self.average = copy.deepcopy(self.network) if recipe.ema else self.network
        self.average.requires_grad_(not recipe.ema)
        self.model.train()
        self.freeze = encoder_switch(self.network) if recipe.freeze_steps else None

    def step(self, number: int, images: Tensor, labels: Any, seed: int) -> Tensor:
        """Train on a batch: images (N, C, P, P) float32, and labels (N, P, P) uint8 or what else the objective takes. The loss, on
        the device.

        Random draws in the network follow from (seed, number), so that no random state has to be kept.
        """
        device = self.fabric.device
        images = images.to(device, non_blocking=True).contiguous(memory_format=self.format)
        seed_step(seed, number)
        if self.freeze and number <= self.recipe.freeze_steps:
            self.freeze(number < self.recipe.freeze_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.recipe) * group[RATE_FACTOR]
        loss = self._backward(images, labels)
        if self.scaler is not None:  # it leaves out a step whose gradients are not finite, and scales less from then on
            self.scaler.unscale_(self.optimizer.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(number)
        return loss

    def _backward(self, images: Tensor, labels: Any) -> Tensor:
        """Gradients of a batch, in `accumulate` parts. Its loss: the mean of the parts' losses, by their shares of the images."""
        losses = []
        for index, (part, known, share) in enumerate(split_batch(images, labels, self.accumulate), 1):
            with self.fabric.no_backward_sync(self.model, enabled=index < self.accumulate):
                self.announce(images_on_all_ranks(self.recipe.batch, self.accumulate, index - 1))
                loss = self.objective(self.model, (part, known), self.fabric.device) * share
                self.fabric.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _average(self, number: int) -> None:
        """Move the running average towards the weights; slowly only once there is something to average."""
        if not self.recipe.ema:
            return
        decay = min(self.recipe.ema, (1 + number) / (10 + number))
        pairs = list(zip(_values(self.average), _values(self.network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - decay)
        if counts:
            torch._foreach_copy_([mine for mine, _ in counts], [theirs for _, theirs in counts])


def _precision(setting: StepSetting, device: str, scaler: torch.amp.GradScaler | None) -> dict[str, Any]:
    """What Lightning Fabric is told of a setting's numbers."""
    if scaler is None:
        return {"precision": "bf16-mixed" if setting.precision == "bf16" else "32-true"}
    from lightning_fabric.plugins import MixedPrecision

    return {"plugins": [MixedPrecision("16-mixed", device, scaler)]}


def _values(module: torch.nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
