"""The training loop, in sight: batches in order, a step each, a look at the validation split now and then, checkpoints.

`train` is the stage. What it writes to `out` follows from plan and data alone (on one machine, to the byte); everything
that is measured (seconds, images a second) goes to `live_dir`.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.files import atomic_path, write_json
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.models.registry import build_network, first_weights_sha256
from segpipe.progress import Progress, say
from segpipe.samples import ClassTable
from segpipe.signals import stop_requests
from segpipe.training.checkpoint import TrainingState, Weights, load_checkpoint, save_checkpoint, to_host
from segpipe.training.distributed.process_group import (
    any_rank,
    broadcast_buffers,
    leave_process_group,
    mean_over_ranks,
    rank,
    world_size,
)
from segpipe.training.distributed.unused_parameters import ignore_unused_parameters
from segpipe.training.finishing.instance_search import choose_instance_settings
from segpipe.training.finishing.postprocess_search import finish_model
from segpipe.training.machine import check_plan, gpu_memory
from segpipe.training.memory import RankOutOfMemory, check_parts, load_parts, save_parts, step_within_memory
from segpipe.training.memory_reserve import release_all, reserve
from segpipe.training.optim.schedules import learning_rate
from segpipe.training.plan import Plan
from segpipe.training.sampling.crops import Reader, batches
from segpipe.training.scoring import Score, score_split, segmenter_spec, validation_segmenter
from segpipe.training.step import Stepper, configure_process
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry.bottleneck import BOTTLENECK_FILE as BOTTLENECK_FILE
from segpipe.training.telemetry.bottleneck import TrainingClock
from segpipe.training.telemetry.live_metrics import live_metrics, log_entry
from segpipe.training.telemetry.pace_monitor import PaceMonitor

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


HISTORY_FILE = "history.json"
_LOG_ENTRIES = 100


def train(plan: Plan, fingerprint: Fingerprint, shards: Path, out: Path, live_dir: Path, checkpoints: Path) -> None:
    """Train (or fit) as planned.

    out: weights.safetensors, segmenter.json, history.json. live_dir: dvclive's curves, with speeds. checkpoints: a folder of
    this candidate's own, from which a training that was stopped goes on; empty again after success.
    Raises ConfigError where this machine can't follow the plan, DataError where the plan is for other data, SegpipeError
    where training diverges, KeyboardInterrupt (after a last checkpoint) on Ctrl-C.
    """
    from segpipe.data.shards import ShardReader

    check_data(plan, fingerprint)
    readers = ShardReader(shards, "train"), ShardReader(shards, "val")
    train_on(plan, fingerprint.classes, *readers, out, live_dir, checkpoints)
    leave_process_group()


def check_data(plan: Plan, fingerprint: Fingerprint) -> None:
    """Raise DataError where a plan is for other data."""
    if plan.data_hash != fingerprint.data_hash:
        raise DataError(
            "the plan was made for other data",
            where=f"plans/{plan.candidate}.json",
            fix=f"segpipe plan {plan.candidate}",
        )


def train_on(
    plan: Plan,
    classes: ClassTable,
    train: Reader,
    val: Reader,
    out: Path,
    live_dir: Path,
    checkpoints: Path,
    watch: Callable[[int, float], None] | None = None,
) -> None:
    """`train` on readers that are open; several processes stay together. watch: told the step and the macro IoU of each validation;
    what it raises ends the training."""
    check_plan(plan)
    if plan.model_family.kind == "classical":
        _fit_classical(plan, classes, train, val, out, live_dir)
        return
    reserve()
    stepper = build_stepper(plan)
    check_parts(stepper.recipe.batch, stepper.accumulate, world_size(), stepper.least_batch)
    with stepper.fabric.rank_zero_first():
        resumed = load_checkpoint(checkpoints, plan, stepper)
    best, state = resumed or ({}, TrainingState(accumulate=stepper.accumulate, ranks=world_size()))
    if resumed:
        _go_on(plan, stepper, state)
    stepper.accumulate = max(stepper.accumulate, load_parts(checkpoints, plan))
    run = _Run(plan, stepper, validation_segmenter(plan, stepper, classes), val, checkpoints, best, state)
    run.watch = watch
    try:
        with live_metrics(live_dir) as live:
            run.to_the_end(train, live)
            release_all()
    except RankOutOfMemory as error:
        save_parts(checkpoints, plan, error.parts)
        raise
    if rank() == 0:
        write_json(live_dir / BOTTLENECK_FILE, run.bottleneck())
        _write(plan, classes, run.best, out)
        _write_history(state, out, finish_model(plan, out, val))
        choose_instance_settings(plan, out, val)
        for path in sorted(checkpoints.glob("*"), reverse=True):  # the newest first, should a kill come in between
            shutil.rmtree(path) if path.is_dir() else path.unlink()  # members of an earlier plan


def _go_on(plan: Plan, stepper: Stepper, state: TrainingState) -> None:
    """Take up what an earlier run of this training had come to, beside its tensors."""
    say(f"{plan.candidate}: goes on from step {state.step}")
    stepper.accumulate = state.accumulate
    if state.ranks != world_size():
        say(
            f"note: {state.ranks} process(es) trained so far, {world_size()} go on: weights may differ in their last bits"
        )
        state.ranks = world_size()


def build_stepper(plan: Plan) -> Stepper:
    """The network of a plan, as it stands before the first step, ready to train on this machine."""
    assert plan.recipe is not None and plan.execution is not None
    configure_process(min(plan.execution.machine.threads, torch.get_num_threads()))
    config = plan.model_family.config.model_validate(plan.options)
    network = build_network(
        plan.family, config, plan.normalisation.channels, plan.outputs.channels, plan.seed, plan.inherited
    )
    if plan.encoder_sha256 and first_weights_sha256(network, bool(plan.inherited)) != plan.encoder_sha256:
        raise ConfigError(
            "the first weights are not those that the plan was made with",
            where=f"plans/{plan.candidate}.json",
            fix=f"bring them back, or plan anew: segpipe plan {plan.candidate} --refresh",
        )
    ignore_unused_parameters(network, plan)
    return Stepper(network, plan.model_family, plan.recipe, plan.execution.setting, plan.execution.machine.device)


class _Run:
    """One training: the loop and what it keeps an eye on."""

    def __init__(
        self,
        plan: Plan,
        stepper: Stepper,
        segmenter: Segmenter,
        val: Reader,
        checkpoints: Path,
        best: Weights,
        state: TrainingState,
    ) -> None:
        assert plan.recipe is not None
        self.plan, self.recipe, self.stepper, self.segmenter, self.val = plan, plan.recipe, stepper, segmenter, val
        self.checkpoints, self.best, self.state = checkpoints, best, state
        self.watch: Callable[[int, float], None] | None = None
        self.log_every = math.ceil(self.recipe.steps / _LOG_ENTRIES)
        self._losses: list[torch.Tensor] = []
        self._since, self._since_step = time.perf_counter(), state.step
        self._clock, self._first_step = TrainingClock(), state.step
        self._lateness = PaceMonitor(plan)

    def to_the_end(self, train: Reader, live: Any) -> None:
        """Run the steps that are left. `live` logs metrics as dvclive's Live does."""
        plan, recipe, state = self.plan, self.recipe, self.state
        assert plan.execution is not None
        for entry in state.train + state.val:  # what an earlier run of this training saw
            log_entry(live, entry)
        for entry in state.val:
            self._tell(entry)
        if self._patience_is_over():  # when a Ctrl-C came
            return
        pin = self.stepper.fabric.device.type == "cuda"
        stream = batches(
            samples_of(train, plan),
            recipe,
            plan.execution.workers,
            state.step,
            rank=rank(),
            ranks=world_size(),
            pin=pin,
        )
        with (
            Progress(f"train {plan.candidate}", recipe.steps, state.step) as progress,
            stop_requests() as asked_to_stop,
        ):
            for number, (images, labels) in enumerate(stream, state.step):
                self._losses.append(step_within_memory(self.stepper, number, images, labels, plan.seed))
                if self.stepper.accumulate != state.accumulate:
                    state.accumulate = self.stepper.accumulate
                    state.memory.append({"step": number + 1, "accumulate": state.accumulate})
                state.step = number + 1
                last = state.step == recipe.steps
                if state.step % self.log_every == 0 or last:
                    log_entry(live, self._take_stock(), self._speed())
                if state.step % recipe.val_every == 0 or last:
                    with self._clock.part("validation"):
                        log_entry(live, self._validate())
                    self._lateness.look(state.step)
                    last = last or self._patience_is_over()
                progress.advance(note=self._note())
                stop = any_rank(asked_to_stop.is_set())
                if stop or (state.step % recipe.checkpoint_every == 0 and not last):
                    with self._clock.part("checkpoints"):
                        self._checkpoint()
                if stop:
                    say(f"{plan.candidate}: stopped after step {state.step}; the same command goes on from there")
                    raise KeyboardInterrupt
                if last:
                    break
        if state.step < recipe.steps:
            say(
                f"{plan.candidate}: no better since step {state.best_step}; stopped after {state.step} of {recipe.steps}"
            )

    def bottleneck(self) -> list[dict[str, float | str]]:
        """Where the time of this process went, by part: rows of training/C/bottleneck.json."""
        assert self.plan.execution is not None
        return self._clock.table(self.state.step - self._first_step, self.plan.execution.step_ms)

    def _patience_is_over(self) -> bool:
        since = sum(entry["step"] > self.state.best_step for entry in self.state.val)
        return self.recipe.patience is not None and since >= self.recipe.patience

    def _fetch_losses(self) -> None:
        """Bring the losses of the last steps over from the device: the only time the loop waits for it."""
        self.state.pending += mean_over_ranks(torch.stack(self._losses)).tolist() if self._losses else []
        self._losses.clear()
        if not all(map(math.isfinite, self.state.pending)):
            rate = self.recipe.learning_rate
            raise SegpipeError(
                f"training diverged: the loss is not finite before step {self.state.step}",
                where=self.plan.candidate,
                fix=f"set train.learning_rate to {rate / 4:g} (it is {rate:g}), or train.precision to fp32",
            )

    def _take_stock(self) -> dict[str, float]:
        self._fetch_losses()
        state = self.state
        loss = sum(state.pending) / len(state.pending)
        rate = learning_rate(state.step - 1, self.recipe)
        state.train.append({"step": state.step, "lr": round(rate, 8), "loss": round(loss, 6)})
        state.pending = []
        return state.train[-1]

    def _speed(self) -> dict[str, float]:
        """Images a second since the last time; validations count, because they cost."""
        now, steps = time.perf_counter(), self.state.step - self._since_step
        rate = steps * self.recipe.batch / max(now - self._since, 1e-9)
        self._since, self._since_step = now, self.state.step
        return {"images_per_s": round(rate, 2)} | gpu_memory(self.stepper.fabric.device.type)

    def _validate(self) -> dict[str, float]:
        broadcast_buffers(self.stepper.average)
        score, state = score_split(self.segmenter, self.val), self.state
        state.val.append(_entry(state.step, score))
        if state.best_score is None or score.iou_macro > state.best_score:
            state.best_score, state.best_step = state.val[-1]["iou_macro"], state.step
            self.best = {name: to_host(value) for name, value in self.stepper.average.state_dict().items()}
        self._tell(state.val[-1])
        return state.val[-1]

    def _tell(self, entry: dict[str, float]) -> None:
        if self.watch is not None:
            self.watch(int(entry["step"]), entry["iou_macro"])

    def _checkpoint(self) -> None:
        self._fetch_losses()
        if rank() == 0:
            save_checkpoint(self.checkpoints, self.plan, self.stepper, self.best, self.state)

    def _note(self) -> str:
        loss = f"loss {self.state.train[-1]['loss']:.3f}" if self.state.train else ""
        return f"{loss}  val IoU {self.state.val[-1]['iou_macro']:.3f}" if self.state.val else loss


def _entry(step: int, score: Score) -> dict[str, float]:
    return {"step": step, "iou_macro": round(score.iou_macro, 6), "pixel_accuracy": round(score.pixel_accuracy, 6)}


def _write(plan: Plan, classes: ClassTable, best: Weights, out: Path) -> None:
    from safetensors.torch import save_file

    with atomic_path(out / WEIGHTS_FILE) as path:
        save_file(best, path)
    segmenter_spec(plan, classes).write(out)


def _write_history(state: TrainingState, out: Path, finished_score: float | None = None) -> None:
    """finished_score: of the model as it serves, where that is not what the best weights scored."""
    content = {"best_score": state.best_score, "best_step": state.best_step, "train": state.train, "val": state.val}
    more = {"memory": state.memory or None, "finished_score": finished_score}
    write_json(out / HISTORY_FILE, content | {name: value for name, value in more.items() if value is not None})


def _fit_classical(plan: Plan, classes: ClassTable, train: Reader, val: Reader, out: Path, live_dir: Path) -> None:
    config = plan.model_family.config.model_validate(plan.options)
    samples = (train[index] for index in range(len(train)))
    model = plan.model_family.classical.fit(samples, plan.normalisation.apply, plan.classes, plan.seed, config)
    spec = segmenter_spec(plan, classes)
    score = score_split(Segmenter(spec, model), val)
    state = TrainingState(best_score=round(score.iou_macro, 6), val=[_entry(0, score)])
    model.save(out / WEIGHTS_FILE)
    spec.write(out)
    choose_instance_settings(plan, out, val)
    _write_history(state, out)
    with live_metrics(live_dir) as live:
        log_entry(live, state.val[0])
    say(f"{plan.candidate}: val IoU {score.iou_macro:.3f}")
