"""The registry: which versions there are, what is known of each, which one is live, and how to change that.

A release is a Git commit of what the pipeline made (dvc.lock and its companions), tagged as a version; the tag's message holds
the release's record. Promotion is one more tag, and the endpoint file that running servers follow. Tags are only ever added.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.config import load_params
from segpipe.drift.reference import REFERENCE_FILE
from segpipe.errors import MissingError, SegpipeError
from segpipe.files import copy_folder, read_json, sha256_file, write_json, write_text
from segpipe.gates.selection import Selection
from segpipe.gates.waivers import today
from segpipe.json_models import validation_error
from segpipe.progress import say
from segpipe.release.blessing import BlessReport
from segpipe.release.bundle import Card, bundle_sha256, check_bundle, model_sha256
from segpipe.release.endpoint_file import Endpoint, endpoint_path
from segpipe.release.record import RecordedVerdict, Score
from segpipe.release.tags import (
    Tags,
    VersionTag,
    checked_stage,
    checked_version,
    read_tags,
    tag_stage,
    tag_version,
    version_key,
)
from segpipe.workspace.dvc import fetch_bundle
from segpipe.workspace.git import commit_paths, is_repository

CHAMPION_FILE = "champion.json"
FIRST_VERSION = "v0.1.0"

PIPELINE_FILES = (
    "dvc.lock",
    "dvc.yaml",
    "params.yaml",
    ":(glob)*.dvc",
    "plans",
    "training",
    ":(glob)evaluation/*/metrics.json",
    ":(glob)evaluation/*/confusion.csv",
    "selection.json",
    CHAMPION_FILE,
    REFERENCE_FILE,
    ".gitignore",
    *(
        f":(glob){folder}/**/.gitignore"
        for folder in ("artifacts", "reports", "models", "evaluation", "plans", "training")
    ),
)
"""What a release commits, as Git pathspecs: the pipeline's own files, none of the user's."""


class Release(BaseModel):
    """The record of one version: in the message of its tag, and in .segpipe/releases/VERSION/release.json."""

    model_config = ConfigDict(extra="ignore")
    name: str
    version: str
    commit: str
    candidate: str
    data_hash: str
    plan_hash: str | None
    parent: str | None = None
    """The release that its training went on from, NAME@VERSION."""
    weights_sha256: str
    model_sha256: str
    bundle_sha256: str
    metric: str
    """The score by which models are compared; a key of `scores`."""
    scores: dict[str, Score]
    gates: list[RecordedVerdict]
    engine: str | None = None
    """What answers: of the engines that `export` tried, the one that the bundle pins. None in records of earlier versions, as is int8."""
    int8: str | None = None
    """What became of int8, in words; None where it was not asked for."""
    bless: BlessReport
    created_at: str
    """UTC, ISO 8601."""
    stages: list[str] = []
    """The stages that the version is in now; read from the tags, kept nowhere."""

    @property
    def score(self) -> float | None:
        """The value of `metric` on the test images."""
        return self.scores[self.metric].value if self.metric in self.scores else None

    def record(self) -> dict[str, Any]:
        """What is kept."""
        return self.model_dump(mode="json", exclude={"stages"})


def next_version(root: Path) -> str:
    """The version of the next release: one minor step above the highest there is."""
    versions = _tags(root).versions
    if not versions:
        return FIRST_VERSION
    major, minor, _ = version_key(versions[-1].version)
    return f"v{major}.{minor + 1}.0"


def version_of_bundle(root: Path, bundle: Path) -> str | None:
    """The newest version whose model is the one in a bundle folder; None where the model is new."""
    wanted = model_sha256(bundle)
    return next((r.version for r in reversed(versions(root)) if r.model_sha256 == wanted), None)


def was_in(root: Path, version: str, stage: str) -> bool:
    """Whether a version is, or ever was, in a stage."""
    return version in _tags(root).history(checked_stage(stage))


def release(root: Path, version: str, bless_report: BlessReport, bento: Path) -> Release:
    """Make `root/bundle` a version: keep a copy, commit the pipeline's files, tag.

    Where the bundle's model is that of an existing version, that version is returned and nothing is done. Raises GateBlocked
    where selection.json says that a gate blocks, or where the waiver that let it through has ended.
    """
    checked_version(version)
    assert bento.name == version, "the Bento was built as this version"
    if known := version_of_bundle(root, root / "bundle"):
        return find_version(root, known)
    bundle, card = root / "bundle", Card.read(root / "bundle")
    Selection.read(root / "selection.json", bundle).check_promotable(today())
    if not is_repository(root):
        raise MissingError(
            "a release is a Git commit, and this workspace has none", where=root, fix="git init && git commit"
        )
    name, plan = load_params(root).release.name, root / "plans" / f"{card.candidate}.json"
    folder = _release_folder(root, version)
    copy_folder(bundle, folder / "bundle")
    score = card.scores.get(card.metric)
    title = f"Release {name} {version}: {card.candidate}" + (f", {card.metric} {score.value:.4f}" if score else "")
    made = Release(
        name=name,
        version=version,
        commit=_commit(root, name, title),
        candidate=card.candidate,
        data_hash=card.data_hash,
        plan_hash=sha256_file(plan) if plan.exists() else None,
        parent=card.lineage.get("parent"),
        weights_sha256=card.weights_sha256,
        model_sha256=model_sha256(folder / "bundle"),
        bundle_sha256=bundle_sha256(folder / "bundle"),
        metric=card.metric,
        scores=card.scores,
        gates=card.gates,
        engine=card.engine,
        int8=card.int8,
        bless=bless_report,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / "release.json", made.record())
    tag_version(root, name, version, f"{title}\n\n{json.dumps(made.record(), indent=1)}\n")
    return made


def versions(root: Path) -> list[Release]:
    """Every version, oldest first, with the stages that it is in."""
    tags = _tags(root)
    current = {stage: tags.live(stage) for stage in {event.stage for event in tags.events}}
    found = []
    for tag in tags.versions:
        made = _parse_record(tag)
        if made is not None:
            found.append(made.model_copy(update={"stages": sorted(s for s, v in current.items() if v == tag.version)}))
    return found


def find_version(root: Path, version: str) -> Release:
    """The record of one version, or an error that lists those there are."""
    checked_version(version)
    there = versions(root)
    for made in there:
        if made.version == version:
            return made
    if any(tag.version == version for tag in _tags(root).versions):
        raise MissingError(
            "the tag of this version holds no record of a release",
            found=version,
            fix="it was moved, or made by hand: bring it back from where it still is (git fetch --tags --force)",
        )
    listed = ", ".join(r.version for r in there) or "none yet"
    raise MissingError("no such version", found=version, expected=f"one of: {listed}", fix="segpipe models lists them")


def live(root: Path, stage: str = "prod") -> str | None:
    """The version that is in a stage now, by the tags; None where there is none, or no Git."""
    return _tags(root).live(checked_stage(stage))


def release_bundle(root: Path, version: str) -> Path:
    """The bundle of a version, byte for byte as released; fetched from the DVC cache (or its remote) where no good copy is here."""
    made = find_version(root, version)
    bundle = _release_folder(root, version) / "bundle"
    if bundle.exists():
        try:
            check_bundle(bundle, made.bundle_sha256)
        except SegpipeError as error:
            say(f"{error} Restoring it now.")
        else:
            return bundle
    fetch_bundle(root, f"{made.name}@{version}", bundle)
    check_bundle(bundle, made.bundle_sha256)
    write_json(bundle.parent / "release.json", made.record())
    return bundle


def promote(root: Path, version: str, stage: str = "prod") -> None:
    """Put a version into a stage and let the servers of that stage follow. Promoting what is live already changes nothing."""
    checked_stage(stage)
    made = find_version(root, version)
    release_bundle(root, version)
    if live(root, stage) != version:
        tag_stage(root, made.name, version, stage)
    update_endpoint(root, stage)


def rollback(root: Path, stage: str = "prod") -> str:
    """Put the version that was in the stage before the current one back into it, as a new event; returns that version."""
    history = _tags(root).history(checked_stage(stage))
    current = history[-1] if history else None
    former = next((v for v in reversed(history) if v is not None and v != current), None)
    if former is None:
        raise MissingError(
            f"nothing to go back to in {stage}",
            found=f"{current} is the only version that was there" if current else "no version was ever there",
            fix="segpipe models lists versions; segpipe promote VERSION",
        )
    promote(root, former, stage)
    return former


def update_endpoint(root: Path, stage: str = "prod") -> Path:
    """Make the endpoint file of a stage say what the tags say, and return its path; MissingError where nothing is promoted."""
    version = live(root, stage)
    if version is None:
        raise MissingError(
            f"nothing is promoted to {stage}",
            where=root,
            fix=f"segpipe run, or segpipe promote VERSION --stage {stage}",
        )
    made, bundle, path = find_version(root, version), release_bundle(root, version), endpoint_path(root, stage)
    relative = bundle.relative_to(root / ".segpipe")
    if path.exists():
        try:
            if Endpoint.read(path).version == version:
                return path
        except SegpipeError as error:
            say(f"{error} Writing it anew.")
    Endpoint(
        version=version,
        bundle=f"../{relative.as_posix()}",
        bundle_sha256=made.bundle_sha256,
        commit=made.commit,
        promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(path)
    return path


def refresh_champion(root: Path) -> bool:
    """Write champion.json, the model that `select` compares with, and reference.json, the data that `validate` compares with, from
    what is live; True where the champion changed.
    """
    version = live(root, load_params(root).release.stage)
    champion: dict[str, str | None] = {"version": None}
    reference: dict[str, Any] = {}
    if version is not None:
        made = find_version(root, version)
        champion = {"version": version, "commit": made.commit, "bundle_sha256": made.bundle_sha256}
        told = release_bundle(root, version) / REFERENCE_FILE
        reference = read_json(told) if told.exists() else {}  # an older bundle tells nothing of its data
    if not (root / REFERENCE_FILE).exists() or read_json(root / REFERENCE_FILE) != reference:
        write_text(root / REFERENCE_FILE, json.dumps(reference) + "\n")
    path = root / CHAMPION_FILE
    if path.exists() and read_json(path) == champion:
        return False
    write_json(path, champion)
    return True


def _tags(root: Path) -> Tags:
    return read_tags(root, load_params(root).release.name)


def _release_folder(root: Path, version: str) -> Path:
    return root / ".segpipe" / "releases" / checked_version(version)


def _parse_record(tag: VersionTag) -> Release | None:
    """The record in a version tag's message; None for a tag that segpipe did not make."""
    _, brace, rest = tag.message.partition("{")
    try:
        return Release.model_validate(json.loads(brace + rest))
    except json.JSONDecodeError:
        return None
    except ValidationError as error:
        raise validation_error(error, f"the tag of {tag.version}", Release) from error


def _commit(root: Path, name: str, title: str) -> str:
    """Commit the pipeline's files; a commit of its own where HEAD carries a version already, for a commit has one at most."""
    commit = commit_paths(root, PIPELINE_FILES, title)
    if read_tags(root, name).version_at(commit) is not None:
        commit = commit_paths(root, PIPELINE_FILES, title, allow_empty=True)
    return commit
