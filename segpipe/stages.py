"""The stages of the pipeline, one function per DVC stage: read parameters and inputs, call the library, write outs.

Each function takes the folder of the workspace, which holds params.yaml, dvc.yaml and data/, and writes the outs that dvc.yaml lists for
the stage.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from segpipe.config import load_params
from segpipe.errors import DataError, MissingError
from segpipe.files import read_json
from segpipe.progress import say
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.training.tuning import TrialResult

P = ParamSpec("P")
R = TypeVar("R")


def _in_workspace(stage: Callable[Concatenate[Path, P], R]) -> Callable[Concatenate[Path, P], R]:
    """Run a stage with the workspace as working directory: paths and `factory:` modules in params.yaml are relative to it."""

    @functools.wraps(stage)
    def run(root: Path, *args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.chdir(root):
            return stage(Path(), *args, **kwargs)

    return run


def _require(path: Path, stage: str) -> Path:
    """Return the path of an input, or raise MissingError with the stage that writes it."""
    if not path.exists():
        raise MissingError("missing input", where=path, fix=f"run `segpipe run`, or `dvc repro {stage}`")
    return path


def _fingerprint(paths: Paths) -> Fingerprint:
    """Read the fingerprint of all images."""
    from segpipe.data.manifest.fingerprint import Fingerprint

    return Fingerprint.read(_require(paths.fingerprint, "ingest"))


def _shards_fingerprint(paths: Paths) -> Fingerprint:
    """Read the fingerprint of the images in the shards: all images, or those that are not in quarantine."""
    from segpipe.data.manifest.fingerprint import Fingerprint

    path = _require(paths.shards, "prepare") / "fingerprint.json"
    return Fingerprint.read(path) if path.exists() else _fingerprint(paths)


@_in_workspace
def ingest(root: Path) -> None:
    """Decode every image and mask once and describe each in the manifest; a broken file gets a row with its error.

    Reads data/. Writes artifacts/manifest.parquet and artifacts/fingerprint.json.
    """
    from segpipe.data.dataset import load_dataset
    from segpipe.data.manifest.build import balance_notes, build_manifest
    from segpipe.data.manifest.fingerprint import make_fingerprint
    from segpipe.data.manifest.table import write_manifest

    paths, params = Paths(root), load_params(root)
    if not paths.data.is_dir():
        fix = "segpipe data import SRC, dvc pull, or segpipe data demo"
        raise MissingError("no data here", where=paths.data, fix=fix)
    dataset = load_dataset(paths.data)
    manifest = build_manifest(dataset, params.data, params.split, cache=paths.cache)
    for note in balance_notes(manifest, params.split):
        say(f"splits of few groups: {note}")
    write_manifest(manifest, paths.manifest)
    fingerprint = make_fingerprint(manifest, dataset.classes, params.data.pages)
    fingerprint.write(paths.fingerprint)
    counts = ", ".join(f"{count} {split}" for split, count in fingerprint.n_images.items())
    unreadable = int(manifest["error"].notna().sum())
    say(f"ingest: {len(manifest)} images ({counts}), {len(dataset.classes)} classes, {unreadable} unreadable")


@_in_workspace
def validate(root: Path) -> None:
    """Check the manifest and write the findings and their page.

    Reads artifacts/manifest.parquet, artifacts/fingerprint.json and reference.json. Writes reports/validation/.

    Raises:
        DataError: there is an error that quarantine does not remove.
    """
    from segpipe.data.manifest.fingerprint import choose_patch
    from segpipe.data.manifest.table import read_manifest
    from segpipe.drift.reference import Reference
    from segpipe.pages.validation import write_validation
    from segpipe.validation.expectations import validate_manifest
    from segpipe.validation.findings import blocking_findings, quarantined_files

    paths, params = Paths(root), load_params(root)
    manifest, fingerprint = read_manifest(_require(paths.manifest, "ingest")), _fingerprint(paths)
    reference, patch = Reference.read(paths.reference), choose_patch(fingerprint)
    findings, gx_result, drifts = validate_manifest(manifest, fingerprint, params.validation, reference, patch)
    write_validation(
        paths.validation, findings, gx_result, manifest, paths.data, params.validation, params.data, drifts
    )
    for finding in findings[:20]:
        where = finding.file or "dataset"
        say(f"validate: {finding.severity}: {where}: {finding.found} (expected {finding.expected}). Fix: {finding.fix}")
    counts = Counter(finding.severity for finding in findings)
    summary = ", ".join(f"{counts[severity]} {severity}s" for severity in ("error", "warning", "note"))
    say(f"validate: {summary}; page: {paths.validation / 'index.html'}")
    if params.validation.quarantine and (left_out := quarantined_files(findings)):
        say(f"validate: quarantine: {len(left_out)} of {len(manifest)} files are left out")
    if errors := blocking_findings(findings, params.validation):
        raise DataError(
            f"{len(errors)} error(s) in the data, the first: {errors[0].found}",
            where=errors[0].file or "data",
            expected=errors[0].expected,
            fix=f"{errors[0].fix}; all errors are listed in {paths.validation / 'index.html'}",
        )


@_in_workspace
def prepare(root: Path) -> None:
    """Write the decoded images of each split to memory-mapped shards.

    Reads data/, artifacts/manifest.parquet and the findings of validation. Writes artifacts/shards/ and artifacts/splits.parquet.
    """
    from segpipe.data.dataset import load_dataset
    from segpipe.data.manifest.table import read_manifest
    from segpipe.data.prepare import prepare_shards

    paths, params = Paths(root), load_params(root)
    validation = read_json(_require(paths.findings, "validate"))
    if not validation["passed"]:
        page = paths.validation / "index.html"
        raise DataError("the data did not pass validation", where=page, fix="correct the errors that the page lists")
    manifest = read_manifest(_require(paths.manifest, "ingest"))
    count = prepare_shards(
        load_dataset(paths.data),
        manifest,
        validation["quarantined"],
        paths.data,
        params.data,
        paths.shards,
        paths.splits,
    )
    megabytes = sum(file.stat().st_size for file in paths.shards.iterdir()) / 1e6
    say(f"prepare: {count} of {len(manifest)} images in shards of {megabytes:,.0f} MB")


@_in_workspace
def plan(root: Path, name: str, refresh: bool = False) -> None:
    """Choose how a candidate is trained, from its settings, the data and speeds measured on this machine.

    Reads artifacts/fingerprint.json and artifacts/shards/. Writes plans/NAME.json. `refresh` is set if the user asks for new measurements
    on this machine; otherwise DVC calls this because data or parameters changed.
    """
    started = time.perf_counter()  # before the imports, for which a budget of time pays as well
    from segpipe.evaluation.metric_lookup import check_scores
    from segpipe.release.warm_start import fetch_trained
    from segpipe.training.plan import explain
    from segpipe.training.planning.planner import make_plan

    paths, params = Paths(root), load_params(root)
    fetch_trained(root, str(params.candidate(name).options.get("encoder_weights", "")))
    fingerprint = _shards_fingerprint(paths)
    check_scores(params, fingerprint)
    new_plan = make_plan(name, params, fingerprint, _require(paths.shards, "prepare"), not refresh, started)
    new_plan.write(paths.plan(name))
    say(explain(new_plan))
    if refresh:
        say(f"plans/{name}.json is new: `segpipe run` (or `dvc repro`) trains with it")


@_in_workspace
def train(root: Path, name: str) -> None:
    """Train a candidate by its plan.

    Reads artifacts/shards/, artifacts/fingerprint.json and plans/NAME.json. Writes models/NAME/ (weights, segmenter.json, history) and
    training/NAME/ (curves and timings).
    """
    from segpipe.release.warm_start import fetch_trained
    from segpipe.training import ensemble
    from segpipe.training.launch import launch
    from segpipe.training.plan import NetworkPlan, Plan
    from segpipe.training.settings_changes import check_settings
    from segpipe.training.train import train as train_model

    paths, params = Paths(root), load_params(root)
    params.candidate(name)
    pinned = Plan.read(_require(paths.plan(name), f"plan@{name}"))
    check_settings(pinned, params.explicit_settings(name))
    fetch_trained(root, str(pinned.options.get("encoder_weights", "")))
    if launch(pinned, ["-C", str(root), "train", name], paths.checkpoints(name)):
        return
    fingerprint, shards = _shards_fingerprint(paths), _require(paths.shards, "prepare")
    outs = paths.model(name), paths.training(name), paths.checkpoints(name)
    if isinstance(pinned, NetworkPlan) and pinned.folds:
        ensemble.train(pinned, fingerprint, shards, *outs)
    else:
        train_model(pinned, fingerprint, shards, *outs)


@_in_workspace
def tune(root: Path, name: str, trials: int, steps: int | None) -> list[TrialResult]:
    """Search for better training settings of a candidate, starting from its plan.

    This is not a stage: the user can copy its result to params.yaml. Trials are kept in .segpipe/tune/NAME.

    Args:
        root: the workspace.
        name: the candidate.
        trials: the number of trials to run now.
        steps: training steps per trial; None: chosen from the plan.

    Returns:
        All trials, the best one first.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.training.plan import Plan
    from segpipe.training.settings_changes import changed_since
    from segpipe.training.tuning import Search, check_tunable, trial_steps

    paths, params = Paths(root), load_params(root)
    settings = params.train_for(name)
    pinned = check_tunable(Plan.read(_require(paths.plan(name), f"plan@{name}")))
    for change in changed_since(pinned, params.explicit_settings(name)):
        say(f"note: {change}: the search uses the existing plan; a new one: segpipe plan {name}")
    folder = paths.state / "tune" / name / pinned.sha256[:16]
    search = Search(pinned, settings, _shards_fingerprint(paths), steps or trial_steps(pinned), folder)
    shards = _require(paths.shards, "prepare")
    search.run(trials, ShardReader(shards, "train"), ShardReader(shards, "val"))
    return search.results()


@_in_workspace
def evaluate(root: Path, name: str) -> None:
    """Score a candidate on the test split, and fit its temperature on the validation split.

    Reads models/NAME/, artifacts/shards/ and artifacts/splits.parquet. Writes evaluation/NAME/ (metrics, confusion matrix, one row per
    image, gallery).
    """
    from segpipe.evaluation.evaluate import evaluate_model

    paths, params = Paths(root), load_params(root)
    params.candidate(name)
    model, shards = _require(paths.model(name), f"train@{name}"), _require(paths.shards, "prepare")
    evaluate_model(model, shards, paths.splits, paths.evaluation(name), params.evaluate, name)


@_in_workspace
def select(root: Path, today: date | None = None) -> None:
    """Rank the candidates, judge the winner by the gates, and write the report.

    Reads the evaluations of all candidates, the findings of validation and champion.json. Writes selection.json (ranking, winner, every
    gate) and reports/report.html. `today` is the day on which waivers are judged, by default the current one: the outs are the same on any
    day, unless a waiver ends in between.
    """
    from segpipe.gates.case import ReleasedBundle
    from segpipe.gates.choose import choose
    from segpipe.gates.waivers import today as current_day
    from segpipe.pages.report import write_report
    from segpipe.release import promotion, registry
    from segpipe.release.champion_file import ChampionFile

    paths, params = Paths(root), load_params(root)
    fingerprint, shards = _shards_fingerprint(paths), _require(paths.shards, "prepare")
    version = ChampionFile.read(paths.champion).version
    champion = ReleasedBundle(version, registry.release_bundle(root, version)) if version else None
    choice = choose(root, params, fingerprint, shards, champion, today or current_day())
    choice.selection.write(paths.selection)
    write_report(root, choice.selection, params, fingerprint, paths.report, choice.champion, shards)
    for verdict in choice.selection.gates:
        say(f"select: {verdict.sentence}")
        if verdict.waiver and verdict.waiver.expired:
            say(f"select: WARNING: the {verdict.name} gate blocks: its waiver ended on {verdict.waiver.until}")
    stage = params.release.stage
    if version != (live := promotion.live(root, stage)):
        say(
            f"select: note: {stage} is {live or 'empty'}, but champion.json says {version or 'none'}; "
            "`segpipe run` compares with the live version"
        )


@_in_workspace
def export(root: Path) -> None:
    """Export the winner as a bundle: ONNX graph, fastest engine that agrees, golden images, model card, reference for drift.

    Reads selection.json, models/, artifacts/ and the findings of validation. Writes bundle/.
    """
    from segpipe.data.manifest.drift_reference import make_reference
    from segpipe.data.manifest.table import read_manifest
    from segpipe.release.export.bundle_export import export_winner

    paths, params = Paths(root), load_params(root)
    selection, shards = _require(paths.selection, "select"), _require(paths.shards, "prepare")
    manifest = read_manifest(_require(paths.manifest, "ingest"))
    quarantined = read_json(_require(paths.findings, "validate"))["quarantined"]
    reference = make_reference(manifest[~manifest["path"].isin(quarantined)], _fingerprint(paths).classes)
    export_winner(selection, params, shards, paths.models, reference, paths.bundle)
