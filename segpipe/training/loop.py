"""The training loop: batches in order, one step each, validations at intervals, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segpipe.progress import Progress, say
from segpipe.signals import stop_requests
from segpipe.training.checkpoint import TrainingState, Weights, save_checkpoint, to_host
from segpipe.training.distributed.process_group import any_rank, broadcast_buffers, mean_over_ranks, rank, world_size
from segpipe.training.machine import gpu_memory
from segpipe.training.memory import step_within_memory
from segpipe.training.optim.schedules import learning_rate
from segpipe.training.sampling.crops import Reader, batches
from segpipe.training.scoring import Score, diverged, score_split
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import TrainingClock
from segpipe.training.telemetry.live_metrics import log_entry
from segpipe.training.telemetry.pace_monitor import PaceMonitor

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter
    from segpipe.training.plan import NetworkPlan
    from segpipe.training.step import Stepper

_MAX_GROWTH, _MIN_FIRST_LOSS, _MAX_LOSS = 100.0, 0.1, 1e4
"""A mean loss above 100 times the first one (or 100 times 0.1), or above 10,000, is an explosion: no loss of a useful network is so
large, and the optimiser does not come back from it."""
_LOG_ENTRIES = 100
"""Entries of the training history, spread evenly over the steps."""


class TrainingLoop:
    """The loop of one training, with its state.

    Args:
        plan: the plan of the training.
        stepper: the network in training.
        segmenter: the network as validations use it.
        val: the validation split.
        checkpoints: folder for checkpoints.
        best: the weights with the best score so far.
        state: the rest of the state.
        on_validation: called with the step and the macro IoU of each validation.
        build_finished: returns the model that training would write now. The validation after the last step uses it, so that what is
            chosen after the training can use its outputs. None: that validation is like the others.
    """

    finished: Segmenter | None = None
    """The model of the last validation, if `build_finished` made it and its score is the best."""

    def __init__(
        self,
        plan: NetworkPlan,
        stepper: Stepper,
        segmenter: Segmenter,
        val: Reader,
        checkpoints: Path,
        best: Weights,
        state: TrainingState,
        on_validation: Callable[[int, float], None] | None,
        build_finished: Callable[[], Segmenter] | None = None,
    ) -> None:
        self.plan, self.recipe, self.stepper, self.segmenter, self.val = plan, plan.recipe, stepper, segmenter, val
        self.checkpoints, self.best, self.state, self.on_validation = checkpoints, best, state, on_validation
        self.build_finished = build_finished
        self.log_every = math.ceil(self.recipe.steps / _LOG_ENTRIES)
        self._losses: list[torch.Tensor] = []
        self._logged_at, self._logged_step = time.perf_counter(), state.step
        self._clock, self._first_step = TrainingClock(), state.step
        self._pace = PaceMonitor(plan)

    def run(self, train: Reader, live: Any) -> None:
        """Take the remaining steps. live: logs metrics, as dvclive's Live does."""
        plan, recipe, state = self.plan, self.recipe, self.state
        for entry in state.train + state.val:  # the history of an earlier run of this training
            log_entry(live, entry)
        for entry in state.val:
            self._report(entry)
        if self._patience_is_exhausted():  # the earlier run was interrupted at that moment
            return
        stream = batches(
            samples_of(train, plan),
            recipe,
            plan.execution.workers,
            state.step,
            rank=rank(),
            world_size=world_size(),
            pin=self.stepper.fabric.device.type == "cuda",
        )
        with (
            Progress(f"train {plan.candidate}", recipe.steps, state.step) as progress,
            stop_requests() as stop_requested,
        ):
            for number, (images, labels) in enumerate(stream, state.step):
                self._losses.append(step_within_memory(self.stepper, number, images, labels, plan.seed))
                if self.stepper.accumulate != state.accumulate:
                    state.accumulate = self.stepper.accumulate
                    state.memory.append({"step": number + 1, "accumulate": state.accumulate})
                state.step = number + 1
                last = state.step == recipe.steps
                if state.step % self.log_every == 0 or last:
                    log_entry(live, self._log_losses(), self._speed())
                if state.step % recipe.val_every == 0 or last:
                    with self._clock.part("validation"):
                        log_entry(live, self._validate())
                    self._pace.check(state.step)
                    last = last or self._patience_is_exhausted()
                progress.advance(note=self._progress_note())
                stop = any_rank(stop_requested.is_set())
                if stop or (state.step % recipe.checkpoint_every == 0 and not last):
                    with self._clock.part("checkpoints"):
                        self._save_checkpoint()
                if stop:
                    say(f"{plan.candidate}: stopped after step {state.step}; the same command continues from there")
                    raise KeyboardInterrupt
                if last:
                    break
        if state.step < recipe.steps:
            say(
                f"{plan.candidate}: no better since step {state.best_step}; stopped after {state.step} of {recipe.steps}"
            )

    def bottleneck(self) -> list[dict[str, float | str]]:
        """Return the rows of training/C/bottleneck.json: where the time of this process went, by part."""
        return self._clock.table(self.state.step - self._first_step, self.plan.execution.step_ms)

    def _patience_is_exhausted(self) -> bool:
        validations_since_best = sum(entry["step"] > self.state.best_step for entry in self.state.val)
        return self.recipe.patience is not None and validations_since_best >= self.recipe.patience

    def _fetch_losses(self) -> None:
        """Copy the losses of the last steps from the device: the only moment when the loop waits for it."""
        self.state.pending += mean_over_ranks(torch.stack(self._losses)).tolist() if self._losses else []
        self._losses.clear()
        if not all(map(math.isfinite, self.state.pending)):
            raise diverged(f"the loss is not finite before step {self.state.step}", self.plan)

    def _log_losses(self) -> dict[str, float]:
        """Append an entry to the training history."""
        self._fetch_losses()
        state = self.state
        loss = sum(state.pending) / len(state.pending)
        first = state.train[0]["loss"] if state.train else math.inf
        if loss > min(_MAX_LOSS, _MAX_GROWTH * max(first, _MIN_FIRST_LOSS)):
            start = f", from {first:.3g}" if state.train else ""
            raise diverged(f"the loss rose to {loss:.3g} before step {state.step}{start}", self.plan)
        rate = learning_rate(state.step - 1, self.recipe)
        state.train.append({"step": state.step, "lr": round(rate, 8), "loss": round(loss, 6)})
        state.pending = []
        return state.train[-1]

    def _speed(self) -> dict[str, float]:
        """Return the images per second since the last call, including validations, because they take time as well."""
        now, steps = time.perf_counter(), self.state.step - self._logged_step
        rate = steps * self.recipe.batch / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_step = now, self.state.step
        return {"images_per_s": round(rate, 2)} | gpu_memory(self.stepper.fabric.device.type)

    def _validate(self) -> dict[str, float]:
        """Append an entry to the validation history, and keep the weights if they are the best so far."""
        broadcast_buffers(self.stepper.average)
        state = self.state
        last = state.step == self.recipe.steps
        finished = self.build_finished() if self.build_finished is not None and last else None
        score = score_split(finished or self.segmenter, self.val)
        state.val.append(val_entry(state.step, score))
        if not score.can_choose:  # the last weights are kept
            if len(state.val) == 1:
                say(
                    f"{self.plan.candidate}: the validation split holds {score.classes} class(es), so it chooses nothing"
                )
            state.best_step = state.step
            self.best = {name: to_host(value) for name, value in self.stepper.average.state_dict().items()}
        elif state.best_score is None or score.iou_macro > state.best_score:
            state.best_score, state.best_step = state.val[-1]["iou_macro"], state.step
            self.best = {name: to_host(value) for name, value in self.stepper.average.state_dict().items()}
            self.finished = finished
        self._report(state.val[-1])
        return state.val[-1]

    def _report(self, entry: dict[str, float]) -> None:
        if self.on_validation is not None:
            self.on_validation(int(entry["step"]), entry["iou_macro"])

    def _save_checkpoint(self) -> None:
        self._fetch_losses()
        if rank() == 0:
            save_checkpoint(self.checkpoints, self.plan, self.stepper, self.best, self.state)

    def _progress_note(self) -> str:
        loss = f"loss {self.state.train[-1]['loss']:.3f}" if self.state.train else ""
        return f"{loss}  val IoU {self.state.val[-1]['iou_macro']:.3f}" if self.state.val else loss


def val_entry(step: int, score: Score) -> dict[str, float]:
    """Return an entry of the validation history."""
    return {"step": step, "iou_macro": round(score.iou_macro, 6), "pixel_accuracy": round(score.pixel_accuracy, 6)}
