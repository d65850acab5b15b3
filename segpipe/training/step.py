"""One optimiser step, as `plan` times it, `train` runs it and the benchmark measures it."""

from __future__ import annotations

import copy
import ctypes
import logging
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segpipe.errors import ConfigError
from segpipe.models.registry import build_network, initial_weights_sha256
from segpipe.ops.depthwise import use_fast_depthwise
from segpipe.ops.group_norm import use_fast_group_norm
from segpipe.ops.instance_norm import use_fast_instance_norm
from segpipe.ops.upsampling import use_fast_upsampling
from segpipe.training.distributed.process_group import fabric_options
from segpipe.training.distributed.shared_dropout import images_on_all_ranks, share_dropout
from segpipe.training.distributed.synced_batch_norm import sync_batch_norm
from segpipe.training.distributed.unused_parameters import ignore_unused_parameters, needs_search
from segpipe.training.machine import make_deterministic
from segpipe.training.optim.freezing import encoder_switch
from segpipe.training.optim.optimisers import RATE_FACTOR, build_optimiser
from segpipe.training.optim.schedules import learning_rate
from segpipe.training.plan import NetworkPlan, Recipe, StepSetting
from segpipe.training.sampling.batch_parts import split_batch
from segpipe.training.tasks import objective_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segpipe.models.registry import Family


def configure_process(threads: int) -> None:
    """Configure this process for training on the CPU: a fixed number of threads, and an allocator that keeps its pages.

    A training step frees and allocates hundreds of MiB. By default, glibc returns large blocks to the system each time and page
    faults occur again, which costs 10 to 25 % of a step. Keeping the memory does not raise its peak.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it; musl does not
        if mallopt is not None:
            m_trim_threshold, m_mmap_max = -1, -4
            mallopt(m_trim_threshold, 2**31 - 1)
            mallopt(m_mmap_max, 0)


def seed_step(seed: int, number: int) -> None:
    """Seed the random draws within a network from the training's seed and the step; the same in all processes (`shared_dropout`)."""
    torch.manual_seed(((seed << 32) + number) % 2**63)


def build_stepper(plan: NetworkPlan) -> Stepper:
    """Build the network of a plan with its initial weights, ready to train on this machine.

    Raises:
        ConfigError: The initial weights are not those that the plan was made with.
        MissingError: They are not available.
    """
    configure_process(min(plan.execution.machine.threads, torch.get_num_threads()))
    config = plan.model_family.config.model_validate(plan.options)
    network = build_network(
        plan.family, config, plan.normalisation.channels, plan.outputs.channels, plan.seed, plan.inherited
    )
    if plan.encoder_sha256 and initial_weights_sha256(network, bool(plan.inherited)) != plan.encoder_sha256:
        raise ConfigError(
            "the initial weights are not those that the plan was made with",
            where=f"plans/{plan.candidate}.json",
            fix=f"restore them, or plan again: segpipe plan {plan.candidate} --refresh",
        )
    ignore_unused_parameters(network, plan)
    return Stepper(network, plan.model_family, plan.recipe, plan.execution.setting, plan.execution.machine.device)


class Stepper:
    """A network with its objective, optimiser and running average, configured for a device.

    Nothing here waits for the device: `step` returns the loss as a tensor.

    Args:
        network: the network; it is changed in place.
        family: its family.
        recipe: what is computed.
        setting: precision, memory format and compilation.
        device: "cpu" or "cuda".
    """

    def __init__(
        self, network: torch.nn.Module, family: Family, recipe: Recipe, setting: StepSetting, device: str
    ) -> None:
        from lightning_fabric import Fabric

        # The plan already says what Fabric announces, and that CUDA's tools are missing without a GPU is expected.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self.recipe, self.setting = recipe, setting
        self.accumulate, self.min_batch = recipe.accumulate, family.min_batch
        # In float16, small gradients would be 0: the loss is scaled up before the backward pass, and gradients down after it.
        self.scaler = torch.amp.GradScaler(device) if setting.precision == "fp16" else None
        self.fabric = Fabric(
            accelerator="cpu" if device == "cpu" else "gpu",
            **_precision(setting, device, self.scaler),
            **fabric_options(recipe.freeze_steps > 0 or needs_search(network)),
        )
        self.fabric.launch()
        if self.fabric.device.type == "cuda":
            make_deterministic()
        channels_last = torch.channels_last_3d if family.dims == 3 else torch.channels_last
        self.format = channels_last if setting.channels_last else torch.contiguous_format
        self.announce_images = share_dropout(network)
        self.network = sync_batch_norm(network, device).to(self.fabric.device).to(memory_format=self.format)
        if device == "cpu" and setting.precision == "bf16":
            use_fast_depthwise(self.network)
        if device == "cpu":
            use_fast_instance_norm(self.network)
            use_fast_group_norm(self.network)
            use_fast_upsampling(self.network)
        if setting.compile:
            self.network.compile(dynamic=False)  # crops of another size are compiled separately
        self.objective = objective_of(family, recipe, self.fabric.device)
        optimiser = build_optimiser(self.network, recipe, half=setting.precision == "bf16")
        self.model, self.optimizer = self.fabric.setup(self.network, optimiser)
        self.average = copy.deepcopy(self.network) if recipe.ema else self.network
        self.average.requires_grad_(not recipe.ema)
        self.model.train()
        self.freeze = encoder_switch(self.network) if recipe.freeze_steps else None

    def step(self, number: int, images: Tensor, labels: Any, seed: int) -> Tensor:
        """Train on a batch.

        Random draws in the network follow from (seed, number), so that no random state has to be stored.

        Args:
            number: number of the step, from 0.
            images: (N, C, P, P) float32, normalised.
            labels: (N, P, P) uint8 class ids, or whatever else the objective takes.
            seed: the seed of the training.

        Returns:
            The loss, a float32 scalar on the device.
        """
        device = self.fabric.device
        images = images.to(device, non_blocking=True).contiguous(memory_format=self.format)
        seed_step(seed, number)
        if self.freeze and number <= self.recipe.freeze_steps:
            self.freeze(number < self.recipe.freeze_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.recipe) * group[RATE_FACTOR]
        loss = self._backward(images, labels)
        if self.scaler is not None:  # it skips a step whose gradients are not finite, and scales less from then on
            self.scaler.unscale_(self.optimizer.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average(number)
        return loss

    def _backward(self, images: Tensor, labels: Any) -> Tensor:
        """Compute the gradients of a batch in `accumulate` parts.

        Returns the loss: the mean of the parts' losses, weighted by their shares of the images.
        """
        losses = []
        for index, (part, part_labels, share) in enumerate(split_batch(images, labels, self.accumulate), 1):
            with self.fabric.no_backward_sync(self.model, enabled=index < self.accumulate):
                self.announce_images(images_on_all_ranks(self.recipe.batch, self.accumulate, index - 1))
                loss = self.objective(self.model, (part, part_labels), self.fabric.device) * share
                self.fabric.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _update_average(self, number: int) -> None:
        """Move the running average towards the weights. The decay grows over the first steps, from 0.1 to that of the recipe."""
        if not self.recipe.ema:
            return
        decay = min(self.recipe.ema, (1 + number) / (10 + number))
        pairs = list(zip(_values(self.average), _values(self.network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in floats], [value for _, value in floats], 1 - decay)
        if counters:
            torch._foreach_copy_([average for average, _ in counters], [value for _, value in counters])


def _precision(setting: StepSetting, device: str, scaler: torch.amp.GradScaler | None) -> dict[str, Any]:
    """Return the arguments of Lightning Fabric for a precision."""
    if scaler is None:
        return {"precision": "bf16-mixed" if setting.precision == "bf16" else "32-true"}
    from lightning_fabric.plugins import MixedPrecision

    return {"plugins": [MixedPrecision("16-mixed", device, scaler)]}


def _values(module: torch.nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
