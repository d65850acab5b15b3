"""One function a DVC stage: read parameters and inputs, call the library, write outs.

Each takes the workspace folder (it holds params.yaml, dvc.yaml and data/) and writes just what dvc.yaml names as its outs.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from segpipe.config import load_params
from segpipe.errors import DataError, MissingError
from segpipe.files import atomic_path, read_json, write_json, write_text
from segpipe.progress import say
from segpipe.workspace.paths import STATE_DIR, Paths

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.training.tuning import Tried

P = ParamSpec("P")


def _at_home(stage: Callable[Concatenate[Path, P], None]) -> Callable[Concatenate[Path, P], None]:
    """Run a stage in its workspace: paths in params.yaml, and the module of a `factory:`, are meant from there."""

    @functools.wraps(stage)
    def run(root: Path, *arguments: P.args, **more: P.kwargs) -> None:
        with contextlib.chdir(root):
            stage(Path(), *arguments, **more)

    return run


def _needs(path: Path, stage: str) -> Path:
    """A stage's input, or an error that names the stage which makes it."""
    if not path.exists():
        raise MissingError(
            "an input of this stage is not there", where=path, fix=f"run `segpipe run`, or `dvc repro {stage}`"
        )
    return path


def _fingerprint(paths: Paths) -> Fingerprint:
    from segpipe.data.manifest.fingerprint import Fingerprint

    return Fingerprint.read(_needs(paths.fingerprint, "ingest"))


def _prepared(paths: Paths) -> Fingerprint:
    """The fingerprint of what the shards hold: of all images, or of those that quarantine left."""
    from segpipe.data.manifest.fingerprint import Fingerprint

    own = _needs(paths.shards, "prepare") / "fingerprint.json"
    return Fingerprint.read(own) if own.exists() else _fingerprint(paths)


def ingest(root: Path) -> None:
    """data/ -> manifest.parquet, fingerprint.json: decode every file once; a bad one becomes a row with its error."""
    from segpipe.data.dataset import load_dataset
    from segpipe.data.manifest.build import build_manifest
    from segpipe.data.manifest.fingerprint import make_fingerprint
    from segpipe.data.manifest.table import write_manifest

    paths, params = Paths(root), load_params(root)
    if not paths.data.is_dir():
        raise MissingError(
            "no data here",
            where=paths.data,
            fix="segpipe data import SRC --format folder, dvc pull, or segpipe data demo",
        )
    dataset = load_dataset(paths.data)
    frame = build_manifest(dataset, params.data, params.split, cache=paths.cache)
    write_manifest(frame, paths.manifest)
    fingerprint = make_fingerprint(frame, dataset.classes)
    fingerprint.write(paths.fingerprint)
    counts = ", ".join(f"{count} {split}" for split, count in fingerprint.n_images.items())
    say(
        f"ingest: {len(frame)} images ({counts}), {len(dataset.classes)} classes, {int(frame['error'].notna().sum())} unreadable"
    )


def validate(root: Path) -> None:
    """manifest (+ reference.json) -> reports/validation/; a DataError where an error stands that quarantine does not take out."""
    from segpipe.data.manifest.fingerprint import choose_patch
    from segpipe.data.manifest.table import read_manifest
    from segpipe.drift.reference import REFERENCE_FILE, Reference
    from segpipe.pages.validation import write_validation
    from segpipe.validation.expectations import quarantined, stopping, validate_manifest

    paths, params = Paths(root), load_params(root)
    frame, fingerprint = read_manifest(_needs(paths.manifest, "ingest")), _fingerprint(paths)
    before = Reference.read(root / REFERENCE_FILE)
    crop = choose_patch(fingerprint)
    findings, gx_result, drifts = validate_manifest(frame, fingerprint, params.validation, before, crop)
    write_validation(paths.validation, findings, gx_result, frame, paths.data, params.validation, params.data, drifts)
    for finding in findings[:20]:
        say(
            f"validate: {finding.severity}: {finding.file or 'dataset'}: {finding.found} (expected {finding.expected}). Fix: {finding.fix}"
        )
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(f"{counts[severity]} {severity}s" for severity in ("error", "warning", "note"))
    say(f"validate: {told}; page: {paths.validation / 'index.html'}")
    if params.validation.quarantine and (left_out := quarantined(findings)):
        say(f"validate: quarantine: {len(left_out)} of {len(frame)} files are left out")
    if stops := stopping(findings, params.validation):
        raise DataError(
            f"{len(stops)} finding(s) of severity error in the data, the first: {stops[0].found}",
            where=stops[0].file or "data",
            expected=stops[0].expected,
            fix=f"{stops[0].fix}; all of them: {paths.validation / 'index.html'}",
        )


def prepare(root: Path) -> None:
    """data/ + manifest -> splits.parquet (with the further columns of samples.csv) and one set of memory-mapped shards a split.

    Where quarantine leaves images out, the shards bring a fingerprint of their own, so that plans count what they train on; and
    where `split.folds` deals, the folds of train and val.
    """
    from segpipe.data.dataset import SAMPLES_FILE, load_dataset, load_samples
    from segpipe.data.manifest.fingerprint import make_fingerprint
    from segpipe.data.manifest.table import read_manifest
    from segpipe.data.manifest.table import usable as usable_rows
    from segpipe.data.sample_columns import read_further_columns
    from segpipe.data.shards import write_shards
    from segpipe.data.splits import DEALT_FILE
    from segpipe.progress import track

    paths, params = Paths(root), load_params(root)
    verdict = read_json(_needs(paths.validation / "findings.json", "validate"))
    if not verdict["passed"]:
        raise DataError(
            "the data did not pass validation", where=paths.validation / "index.html", fix="mend what the page lists"
        )
    frame = read_manifest(_needs(paths.manifest, "ingest"))
    kept = frame[~frame["path"].isin(verdict["quarantined"])]
    usable = kept[usable_rows(kept)]
    dataset = load_dataset(paths.data)
    items = {item.key: item for item in dataset.items}
    staging = paths.shards.with_name(".shards")
    shutil.rmtree(staging, ignore_errors=True)
    for split, rows in usable.groupby("split", sort=True):
        samples = load_samples([items[key] for key in rows["key"]], dataset.classes, params.data)
        write_shards(staging, str(split), track(samples, f"prepare {split}", len(rows)), dataset.classes.labelling)
    if len(usable) < usable_rows(frame).sum():
        make_fingerprint(kept, dataset.classes).write(staging / "fingerprint.json")
    if usable["fold"].notna().any():
        dealt = usable[usable["split"] != "test"]
        write_json(staging / DEALT_FILE, dict(zip(dealt["key"], map(int, dealt["fold"]), strict=True)))
    shutil.rmtree(paths.shards, ignore_errors=True)
    staging.rename(paths.shards)
    with atomic_path(paths.splits) as target:
        about = usable[["key", "path", "mask_path", "group", "split", "fold"]]
        about.join(read_further_columns(paths.data / SAMPLES_FILE), on="key").to_parquet(target, index=False)
    size = sum(p.stat().st_size for p in paths.shards.iterdir()) / 1e6
    say(f"prepare: {len(usable)} of {len(frame)} images in shards of {size:,.0f} MB")


@_at_home
def plan(root: Path, name: str, refresh: bool = False) -> None:
    """fingerprint + params -> plans/NAME.json: how the candidate is trained, with the speeds measured on this machine.

    DVC calls this when data or parameters changed; `refresh` is the user's word that the machine did, and keeps nothing either.
    """
    from segpipe.evaluation.metric_lookup import check_scores
    from segpipe.release.warm_start import fetch_trained
    from segpipe.training.plan import explain
    from segpipe.training.planning.planner import make_plan

    paths, params = Paths(root), load_params(root)
    fetch_trained(root, str(params.candidate(name).options.get("encoder_weights", "")))
    prepared = _prepared(paths)
    check_scores(params, prepared)
    made = make_plan(name, params, prepared, _needs(paths.shards, "prepare"))
    made.write(paths.plan(name))
    say(explain(made))
    if refresh:
        say(f"plans/{name}.json is new: `segpipe run` (or `dvc repro`) trains by it")


@_at_home
def train(root: Path, name: str) -> None:
    """shards + plan -> models/NAME/ (weights, segmenter.json, history) and training/NAME/ (curves and timings)."""
    from segpipe.release.warm_start import fetch_trained
    from segpipe.training import ensemble, loop
    from segpipe.training.distributed.launch import launch
    from segpipe.training.plan import Plan, check_settings

    paths, params = Paths(root), load_params(root)
    params.candidate(name)
    made = Plan.read(_needs(paths.plan(name), f"plan@{name}"))
    check_settings(made, params.set_for(name))
    fetch_trained(root, str(made.options.get("encoder_weights", "")))
    if launch(made, ["-C", str(root), "train", name], paths.checkpoints(name)):
        return
    run_training = ensemble.train if made.folds else loop.train
    run_training(
        made,
        _prepared(paths),
        _needs(paths.shards, "prepare"),
        paths.model(name),
        paths.training(name),
        paths.checkpoints(name),
    )


def tune(root: Path, name: str, trials: int, steps: int | None) -> list[Tried]:
    """Search for training settings of a candidate around its plan; what was tried, the best first. Kept in .segpipe/tune/NAME.

    No stage: what it finds becomes settings in params.yaml, which stages follow.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.training.plan import Plan, changed_since
    from segpipe.training.tuning import Search, trial_steps

    with contextlib.chdir(root):
        paths, params = Paths(Path()), load_params(Path())
        wanted = params.train_for(name)
        made = Plan.read(_needs(paths.plan(name), f"plan@{name}"))
        for change in changed_since(made, params.set_for(name)):
            say(f"note: {change}: the search is around the plan as it is (segpipe plan {name})")
        folder = Path(STATE_DIR) / "tune" / name / made.sha256[:16]
        search = Search(made, wanted, _prepared(paths), steps or trial_steps(made), folder)
        shards = _needs(paths.shards, "prepare")
        search.run(trials, ShardReader(shards, "train"), ShardReader(shards, "val"))
        return search.tried()


@_at_home
def evaluate(root: Path, name: str) -> None:
    """model + shards (test, and val for the temperature) -> evaluation/NAME/: metrics, confusion matrix, a row an image, gallery."""
    from segpipe.data.shards import ShardReader
    from segpipe.evaluation.calibration import temperature_on
    from segpipe.evaluation.cost import measure_cost
    from segpipe.evaluation.evaluate import Known, evaluate_candidate, ranking_score
    from segpipe.evaluation.slice_attributes import read_columns
    from segpipe.inference.spec import WEIGHTS_FILE
    from segpipe.inference.trained import load_trained

    paths, params = Paths(root), load_params(root)
    params.candidate(name)
    model = _needs(paths.model(name), f"train@{name}")
    history = read_json(model / "history.json")
    score = history.get("finished_score", history.get("best_score"))
    reader, trained = ShardReader(_needs(paths.shards, "prepare"), "test"), load_trained(model)
    temperature = temperature_on(trained, ShardReader(paths.shards, "val"))
    segmenter = trained if temperature is None else trained.at_temperature(temperature)
    known = Known(
        columns=read_columns(paths.splits),
        temperature=temperature,
        weight_bytes=(model / WEIGHTS_FILE).stat().st_size,
        val_ranked=ranking_score(segmenter, ShardReader(paths.shards, "val"), params.evaluate.rank_by),
        cost=measure_cost(segmenter, reader) if len(reader) else None,
        folds=history.get("folds", {}),
    )
    evaluate_candidate(segmenter, reader, paths.evaluation(name), params.evaluate, name, val_score=score, known=known)


def select(root: Path, today: date | None = None) -> None:
    """evaluations + champion.json -> selection.json (ranking, winner, every gate) and reports/report.html.

    today: the day by which waivers are judged; by default this one. On any day between the last days of waivers the outs are
    the same.
    """
    from segpipe.gates.selection import choose
    from segpipe.gates.waivers import today as release_day
    from segpipe.pages.report import write_report
    from segpipe.release.registry import live

    paths, params = Paths(root), load_params(root)
    fingerprint = _prepared(paths)
    outcome = choose(root, params, fingerprint, _needs(paths.shards, "prepare"), today or release_day())
    selection = outcome.selection
    write_text(paths.selection, selection.model_dump_json(indent=2) + "\n")
    write_report(root, selection, params, fingerprint, paths.report, outcome.champion, paths.shards)
    for gate in selection.gates:
        say(f"select: {gate.sentence}")
        if gate.waiver and gate.waiver.expired:
            say(f"select: WARNING: the {gate.name} gate blocks: its waiver ended on {gate.waiver.until}")
    compared, serving = read_json(root / "champion.json")["version"], live(root, params.release.stage)
    if compared != serving:
        say(
            f"select: note: {params.release.stage} is {serving or 'empty'} now, while champion.json says {compared or 'none'}; "
            "`segpipe run` compares with what serves"
        )


@_at_home
def export(root: Path) -> None:
    """winner -> bundle/: ONNX, segmenter.json with the fastest engine that agrees, golden images, model card, what its data were like."""
    from segpipe.data.manifest.table import read_manifest
    from segpipe.data.shards import ShardReader
    from segpipe.drift.reference import REFERENCE_FILE, make_reference
    from segpipe.gates.latency import check_latency
    from segpipe.release.export.bundle_export import export_bundle
    from segpipe.release.export.int8 import Examples

    paths, params = Paths(root), load_params(root)
    selection = read_json(_needs(paths.selection, "select"))
    if selection["winner"] is None:
        raise MissingError(
            "there is no winner to export", where=paths.selection, fix="add a trainable candidate to params.yaml"
        )
    shards, model = _needs(paths.shards, "prepare"), _needs(paths.model(selection["winner"]), "train")
    wanted = params.export.int8 != "off"
    examples = Examples(ShardReader(shards, "train"), ShardReader(shards, "val")) if wanted else None
    export_bundle(model, ShardReader(shards, "test"), selection, params.export, paths.bundle, examples)
    manifest = read_manifest(_needs(paths.manifest, "ingest"))
    kept = manifest[~manifest["path"].isin(read_json(paths.validation / "findings.json")["quarantined"])]
    make_reference(kept, _fingerprint(paths).classes).write(paths.bundle / REFERENCE_FILE)
    check_latency(params.gates, paths.bundle, selection["winner"])
