"""The training of a candidate, from its plan to the finished model.

`train` is the stage. What it writes to `out` follows from plan and data alone (on one machine, to the byte). Everything
that is measured (seconds, images per second) goes to `live_dir`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import DataError
from segpipe.files import atomic_path, write_json
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.inference.trained_model import load_trained
from segpipe.progress import say
from segpipe.samples import ClassTable
from segpipe.training.checkpoint import TrainingState, Weights, load_checkpoint
from segpipe.training.distributed.process_group import leave_process_group, rank, world_size
from segpipe.training.finishing.instance_search import choose_instance_settings
from segpipe.training.finishing.postprocess_search import finish_model, has_choices
from segpipe.training.finishing.remembered_outputs import remember_outputs
from segpipe.training.folds import spread_evenly
from segpipe.training.loop import TrainingLoop, val_entry
from segpipe.training.machine import check_plan
from segpipe.training.memory import RankOutOfMemory, check_parts, load_parts, save_parts
from segpipe.training.memory_reserve import release_all, reserve
from segpipe.training.plan import ClassicalPlan, NetworkPlan, Plan
from segpipe.training.sampling.crops import Reader
from segpipe.training.scoring import (
    finished_segmenter,
    score_split,
    segmenter_spec,
    validation_segmenter,
    write_input_spec,
)
from segpipe.training.step import Stepper, build_stepper
from segpipe.training.telemetry.bottleneck import BOTTLENECK_FILE
from segpipe.training.telemetry.live_metrics import live_metrics, log_entry

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint

HISTORY_FILE = "history.json"


def train(
    plan: NetworkPlan | ClassicalPlan,
    fingerprint: Fingerprint,
    shards: Path,
    out: Path,
    live_dir: Path,
    checkpoints: Path,
) -> None:
    """Train a network, or fit a classical model, as planned.

    Args:
        plan: the plan.
        fingerprint: statistics of the data that is there now.
        shards: the folder that `prepare` wrote.
        out: folder for weights.safetensors, segmenter.json and history.json.
        live_dir: folder for dvclive's curves and for measured speeds.
        checkpoints: folder of this candidate alone, from which a stopped training continues; empty again after success.

    Raises:
        ConfigError: This machine cannot follow the plan.
        DataError: The plan was made for other data.
        SegpipeError: Training diverged.
        KeyboardInterrupt: The user stopped it; a last checkpoint was written.
    """
    from segpipe.data.shards import ShardReader

    check_data(plan, fingerprint)
    train_split, val_split = ShardReader(shards, "train"), ShardReader(shards, "val")
    train_on(plan, fingerprint.classes, train_split, val_split, out, live_dir, checkpoints)
    write_input_spec(out, fingerprint)
    leave_process_group()


def check_data(plan: Plan, fingerprint: Fingerprint) -> None:
    """Raise DataError if a plan was made for other data."""
    if plan.data_hash != fingerprint.data_hash:
        raise DataError(
            "the plan was made for other data",
            where=f"plans/{plan.candidate}.json",
            fix=f"segpipe plan {plan.candidate}",
        )


def train_on(
    plan: NetworkPlan | ClassicalPlan,
    classes: ClassTable,
    train: Reader,
    val: Reader,
    out: Path,
    live_dir: Path,
    checkpoints: Path,
    on_validation: Callable[[int, float], None] | None = None,
) -> None:
    """Train as `train` does, on open readers. If several processes train, they stay connected.

    Args:
        plan: the plan.
        classes: the classes of the dataset.
        train: the training split.
        val: the validation split.
        out: folder for weights.safetensors, segmenter.json and history.json.
        live_dir: folder for dvclive's curves and for measured speeds.
        checkpoints: folder from which a stopped training continues.
        on_validation: called with the step and the macro IoU of each validation; an exception from it ends the training.
    """
    check_plan(plan)
    if isinstance(plan, ClassicalPlan):
        _fit_classical(plan, classes, train, val, out, live_dir)
        return
    reserve()
    images, val = len(val), spread_evenly(val, plan.recipe.val_images)
    stepper = build_stepper(plan)
    check_parts(stepper.recipe.batch, stepper.accumulate, world_size(), stepper.min_batch)
    with stepper.fabric.rank_zero_first():
        resumed = load_checkpoint(checkpoints, plan, stepper)
    best, state = resumed or ({}, TrainingState(accumulate=stepper.accumulate, ranks=world_size()))
    if resumed:
        _resume(plan, stepper, state)
    stepper.accumulate = max(stepper.accumulate, load_parts(checkpoints, plan))
    segmenter = validation_segmenter(plan, stepper, classes)
    finishes = has_choices(plan, val)

    def build_finished() -> Segmenter:
        return remember_outputs(finished_segmenter(plan, stepper, classes))

    shares = build_finished if finishes and world_size() == 1 else None
    loop = TrainingLoop(plan, stepper, segmenter, val, checkpoints, best, state, on_validation, shares)
    try:
        with live_metrics(live_dir) as live:
            loop.run(train, live)
            release_all()
    except RankOutOfMemory as error:
        save_parts(checkpoints, plan, error.parts)
        raise
    if rank() == 0:
        write_json(live_dir / BOTTLENECK_FILE, loop.bottleneck())
        _write_model(plan, classes, loop.best, out)
        score = _finish(plan, loop.finished, val, out) if finishes else None
        _write_history(state, out, score, len(val) if len(val) < images else None)
        for path in sorted(checkpoints.glob("*"), reverse=True):  # the newest first, in case of a kill in between
            shutil.rmtree(path) if path.is_dir() else path.unlink()  # folders are members of an earlier plan


def _finish(plan: NetworkPlan, finished: Segmenter | None, val: Reader, out: Path) -> float | None:
    """Choose the postprocessing of the model in a folder. Returns the result of `finish_model`.

    Args:
        plan: the plan of the training.
        finished: the same model with the outputs of the last validation; None: it is loaded, and its outputs are computed once.
        val: the validation images that are used.
        out: the folder of the model.
    """
    segmenter = finished or remember_outputs(load_trained(out, plan.execution.machine.device))
    return finish_model(plan, out, val, segmenter.with_changes(tta=plan.recipe.tta))


def _resume(plan: Plan, stepper: Stepper, state: TrainingState) -> None:
    """Restore what a checkpoint holds in addition to tensors."""
    say(f"{plan.candidate}: continues from step {state.step}")
    stepper.accumulate = state.accumulate
    if state.ranks != world_size():
        say(
            f"note: so far {state.ranks} process(es) trained, now {world_size()}: weights may differ in their last bits"
        )
        state.ranks = world_size()


def _write_model(plan: Plan, classes: ClassTable, weights: Weights, out: Path) -> None:
    from safetensors.torch import save_file

    with atomic_path(out / WEIGHTS_FILE) as path:
        save_file(weights, path)
    segmenter_spec(plan, classes).write(out)


def _write_history(
    state: TrainingState, out: Path, finished_score: float | None = None, val_images: int | None = None
) -> None:
    """Write history.json.

    Args:
        state: the state at the end of the training.
        out: the folder of the model.
        finished_score: that of the model as it serves, if it differs from the score of the best weights.
        val_images: the validation images that all scores are of; None: all.
    """
    content = {"best_score": state.best_score, "best_step": state.best_step, "train": state.train, "val": state.val}
    optional = {"memory": state.memory or None, "finished_score": finished_score, "val_images": val_images}
    write_json(out / HISTORY_FILE, content | {name: value for name, value in optional.items() if value is not None})


def _fit_classical(
    plan: ClassicalPlan, classes: ClassTable, train: Reader, val: Reader, out: Path, live_dir: Path
) -> None:
    config = plan.model_family.config.model_validate(plan.options)
    samples = (train[index] for index in range(len(train)))
    model = plan.model_family.classical.fit(samples, plan.normalisation.apply, plan.classes, plan.seed, config)
    spec = segmenter_spec(plan, classes)
    model.save(out / WEIGHTS_FILE)
    spec.write(out)
    segmenter = remember_outputs(load_trained(out))
    score = score_split(segmenter, val)
    state = TrainingState(best_score=round(score.iou_macro, 6), val=[val_entry(0, score)])
    if plan.postprocess is not None:
        choose_instance_settings(plan, segmenter, val).spec.write(out)
    _write_history(state, out)
    with live_metrics(live_dir) as live:
        log_entry(live, state.val[0])
    say(f"{plan.candidate}: val IoU {score.iou_macro:.3f}")
