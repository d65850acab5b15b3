"""Training the members of an ensemble, one after another, and making one model of them.

Each is a training of its own (`segpipe.training.loop`), with its own readers, checkpoints and seed. A training that was stopped goes
on with the member that was being trained: those before it are done.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.files import atomic_path, read_json, write_json, write_text
from segpipe.inference.out_of_fold import FOLDS_FILE
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.inference.trained import load_trained
from segpipe.progress import say
from segpipe.training.distributed.process_group import leave_process_group, rank
from segpipe.training.finishing.instance_search import choose_instance_settings
from segpipe.training.finishing.postprocess_search import finish_model
from segpipe.training.folds import DealtFolds, deal_out, member_plan
from segpipe.training.loop import HISTORY_FILE, check_data, train_on
from segpipe.training.scoring import count_split, score_confusion, segmenter_spec
from segpipe.training.telemetry.bottleneck import BOTTLENECK_FILE as BOTTLENECK_FILE
from segpipe.training.telemetry.live_metrics import live_metrics, log_entry

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.samples import ClassTable
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader


_DONE = "done"
"""In a member's folder, when it was trained to its end: the identity of its plan."""


def train(plan: Plan, fingerprint: Fingerprint, shards: Path, out: Path, live_dir: Path, checkpoints: Path) -> None:
    """Train all members as planned, as `segpipe.training.loop.train` does one network; `out` also holds folds.json."""
    from segpipe.data.shards import ShardReader

    check_data(plan, fingerprint)
    assert plan.folds is not None
    readers = ShardReader(shards, "train"), ShardReader(shards, "val")
    dealt = deal_out(plan.folds, plan.seed, *readers, shards)
    train_members(plan, fingerprint.classes, dealt, readers[1], out, live_dir, checkpoints)
    leave_process_group()


def train_members(
    plan: Plan, classes: ClassTable, dealt: DealtFolds, val: Reader, out: Path, live_dir: Path, checkpoints: Path
) -> None:
    """`train` on images that are dealt out. val: the validation split, by whose images the ensemble is judged and ranked."""
    assert plan.folds is not None
    home = checkpoints / "folds"
    folders = [home / f"{fold}" for fold in range(plan.folds.count)]
    for fold, folder in enumerate(folders):
        own, done = member_plan(plan, fold), folder / _DONE
        if done.exists() and done.read_text() == own.sha256:
            continue
        say(f"{plan.candidate}: member {fold + 1} of {len(folders)}, without fold {fold}")
        places = folder / "model", folder / "live", folder / "checkpoints"
        train_on(own, classes, dealt.rest(fold), dealt.left_out(fold), *places)
        if rank() == 0:
            write_text(done, own.sha256)
    if rank() == 0:
        _assemble(plan, classes, dealt, [folder / "model" for folder in folders], out)
        _write_history(plan, [read_json(folder / "model" / HISTORY_FILE) for folder in folders], val, out)
        choose_instance_settings(plan, out, val)
        _write_curves(plan, folders, live_dir)
        shutil.rmtree(home)


def _assemble(plan: Plan, classes: ClassTable, dealt: DealtFolds, members: list[Path], out: Path) -> None:
    """All weights in one file, named as `Ensemble` names them."""
    from safetensors.torch import load_file, save_file

    weights = {
        f"members.{number}.{name}": value
        for number, member in enumerate(members)
        for name, value in load_file(member / WEIGHTS_FILE).items()
    }
    with atomic_path(out / WEIGHTS_FILE) as path:
        save_file(weights, path)
    write_json(out / FOLDS_FILE, dealt.by_key)
    segmenter_spec(plan, classes).model_copy(update={"members": len(members)}).write(out)


def _write_history(plan: Plan, members: list[dict[str, Any]], val: Reader, out: Path) -> None:
    """history.json of the ensemble: what it scores on val out of fold, what each member scored on its fold, and how that came about."""
    assert plan.execution is not None
    weights_alone = load_trained(out, plan.execution.machine.device).but(tta="none")
    counts = count_split(weights_alone, val, range(len(val)))
    best = round(score_confusion(counts, weights_alone.spec.classes.labelling).iou_macro, 6)
    finished = finish_model(plan, out, val)
    scores = [member["best_score"] for member in members]
    about = {"scores": scores, "mean": round(statistics.mean(scores), 6), "sd": round(statistics.stdev(scores), 6)}
    content = {"best_score": best} | ({"finished_score": finished} if finished is not None else {})
    write_json(out / HISTORY_FILE, content | {"folds": about, "members": members})
    say(f"{plan.candidate}: val IoU {best:.3f} out of fold; folds: {about['mean']:.3f} ± {about['sd']:.3f}")


def _write_curves(plan: Plan, folders: list[Path], live_dir: Path) -> None:
    """The curves of all members, one after another, as of one training; where the time went, on average."""
    assert plan.recipe is not None
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
