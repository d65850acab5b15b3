"""The training of an ensemble: its members one after another, then one model made of them.

Each member is a training of its own (`segpipe.training.train`), with its own readers, checkpoints and seed. A stopped training
continues with the member that was in training; those before it are complete.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.files import atomic_path, read_json, write_json, write_text
from segpipe.inference.out_of_fold import FOLDS_FILE
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.inference.trained_model import load_trained
from segpipe.progress import say
from segpipe.training.distributed.process_group import leave_process_group, rank
from segpipe.training.finishing.postprocess_search import finish_model, has_choices
from segpipe.training.finishing.remembered_outputs import remember_outputs
from segpipe.training.folds import FoldImages, make_folds, member_plan
from segpipe.training.scoring import count_split, score_confusion, segmenter_spec, write_input_spec
from segpipe.training.telemetry.bottleneck import BOTTLENECK_FILE
from segpipe.training.telemetry.live_metrics import live_metrics, log_entry
from segpipe.training.train import HISTORY_FILE, check_data, train_on

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.samples import ClassTable
    from segpipe.training.plan import NetworkPlan
    from segpipe.training.sampling.crops import Reader


_DONE_FILE = "done"
"""A file in the folder of a member whose training is complete: the identity of its plan."""


def train(
    plan: NetworkPlan, fingerprint: Fingerprint, shards: Path, out: Path, live_dir: Path, checkpoints: Path
) -> None:
    """Train all members as planned, as `segpipe.training.train.train` trains one network; `out` also receives folds.json.

    Args:
        plan: a plan with folds.
        fingerprint: statistics of the data that is there now.
        shards: the folder that `prepare` wrote.
        out: folder for the model.
        live_dir: folder for dvclive's curves and for measured speeds.
        checkpoints: folder of this candidate alone, from which a stopped training continues.
    """
    from segpipe.data.shards import ShardReader

    check_data(plan, fingerprint)
    assert plan.folds is not None
    train_split, val_split = ShardReader(shards, "train"), ShardReader(shards, "val")
    fold_images = make_folds(plan.folds, plan.seed, train_split, val_split, shards)
    train_members(plan, fingerprint.classes, fold_images, val_split, out, live_dir, checkpoints)
    write_input_spec(out, fingerprint)
    leave_process_group()


def train_members(
    plan: NetworkPlan,
    classes: ClassTable,
    fold_images: FoldImages,
    val: Reader,
    out: Path,
    live_dir: Path,
    checkpoints: Path,
) -> None:
    """Train all members, as `train` does, on images that are divided into folds.

    Args:
        plan: a plan with folds.
        classes: the classes of the dataset.
        fold_images: the images of each fold.
        val: the validation split, on which the ensemble is judged and ranked.
        out: folder for the model.
        live_dir: folder for dvclive's curves and for measured speeds.
        checkpoints: folder from which a stopped training continues.
    """
    assert plan.folds is not None
    members_dir = checkpoints / "folds"
    folders = [members_dir / f"{fold}" for fold in range(plan.folds.count)]
    for fold, folder in enumerate(folders):
        fold_plan, done = member_plan(plan, fold), folder / _DONE_FILE
        if done.exists() and done.read_text() == fold_plan.sha256:
            continue
        say(f"{plan.candidate}: member {fold + 1} of {len(folders)}, without fold {fold}")
        train_on(
            fold_plan,
            classes,
            fold_images.without_fold(fold),
            fold_images.only_fold(fold),
            folder / "model",
            folder / "live",
            folder / "checkpoints",
        )
        if rank() == 0:
            write_text(done, fold_plan.sha256)
    if rank() == 0:
        _assemble(plan, classes, fold_images, [folder / "model" for folder in folders], out)
        _write_history(plan, [read_json(folder / "model" / HISTORY_FILE) for folder in folders], val, out)
        _write_curves(plan, folders, live_dir)
        shutil.rmtree(members_dir)


def _assemble(plan: NetworkPlan, classes: ClassTable, fold_images: FoldImages, members: list[Path], out: Path) -> None:
    """Write all weights to one file, named as in `Ensemble`."""
    from safetensors.torch import load_file, save_file

    weights = {
        f"members.{number}.{name}": value
        for number, member in enumerate(members)
        for name, value in load_file(member / WEIGHTS_FILE).items()
    }
    with atomic_path(out / WEIGHTS_FILE) as path:
        save_file(weights, path)
    write_json(out / FOLDS_FILE, fold_images.fold_by_key)
    segmenter_spec(plan, classes).model_copy(update={"members": len(members)}).write(out)


def _write_history(plan: NetworkPlan, members: list[dict[str, Any]], val: Reader, out: Path) -> None:
    """Write history.json: the out-of-fold score of the ensemble on val, the score of each member on its fold, and their histories."""
    segmenter = remember_outputs(load_trained(out, plan.execution.machine.device))
    without_tta = segmenter.with_changes(tta="none")
    counts = count_split(without_tta, val, range(len(val)))
    best = round(score_confusion(counts, without_tta.spec.classes.labelling).iou_macro, 6)
    finished = finish_model(plan, out, val, segmenter) if has_choices(plan, val) else None
    scores = [member["best_score"] for member in members]
    folds = {"scores": scores, "mean": round(statistics.mean(scores), 6), "sd": round(statistics.stdev(scores), 6)}
    content = {"best_score": best} | ({"finished_score": finished} if finished is not None else {})
    write_json(out / HISTORY_FILE, content | {"folds": folds, "members": members})
    say(f"{plan.candidate}: val IoU {best:.3f} out of fold; folds: {folds['mean']:.3f} ± {folds['sd']:.3f}")


def _write_curves(plan: NetworkPlan, folders: list[Path], live_dir: Path) -> None:
    """Write the curves of all members one after another, as of one training, and the mean of where their time went."""
    speeds = [read_json(folder / "live" / "metrics.json")["train"]["images_per_s"] for folder in folders]
    with live_metrics(live_dir) as live:
        for number, folder in enumerate(folders):
            history = read_json(folder / "model" / HISTORY_FILE)
            for entry in history["train"] + history["val"]:
                log_entry(live, entry | {"step": entry["step"] + number * plan.recipe.steps})
        live.log_metric("train/images_per_s", round(statistics.mean(speeds), 2))
        live.make_summary()
    tables = [read_json(folder / "live" / BOTTLENECK_FILE) for folder in folders]
    rows = [
        {"part": parts[0]["part"]}
        | {key: round(statistics.mean(part[key] for part in parts), 4) for key in ("share", "ms")}
        for parts in zip(*tables, strict=False)
    ]
    write_json(live_dir / BOTTLENECK_FILE, rows)
