"""The registry of releases: list the versions, make one, fetch the bundle of one.

A release is a Git commit of the pipeline's files (dvc.lock and others) with a version tag. The message of the tag holds the
record of the release. Tags are never removed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from segpipe.config import load_params
from segpipe.drift.reference import REFERENCE_FILE
from segpipe.errors import MissingError, SegpipeError
from segpipe.files import copy_folder, sha256_file, write_json
from segpipe.gates.selection import Selection
from segpipe.gates.waivers import today
from segpipe.progress import say
from segpipe.release.bundle import Card, bundle_sha256, check_bundle, early_model_sha256, model_sha256
from segpipe.release.packaging.bento import record_commit
from segpipe.release.packaging.blessing import BlessReport
from segpipe.release.record import ModelRecord
from segpipe.release.release_record import Release, parse_record
from segpipe.release.tags import (
    Tags,
    checked_version,
    read_tags,
    tag_version,
    version_key,
)
from segpipe.workspace.dvc import fetch_bundle
from segpipe.workspace.git import commit_paths, is_repository
from segpipe.workspace.paths import Paths

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
    "champion.json",
    REFERENCE_FILE,
    ".gitignore",
    *(
        f":(glob){folder}/**/.gitignore"
        for folder in ("artifacts", "reports", "models", "evaluation", "plans", "training")
    ),
)
"""The files that a release commits, as Git pathspecs: only those that the pipeline writes or reads, none of the user's others."""


def next_version(root: Path) -> str:
    """Return the version of the next release: the highest version with its minor number increased by one."""
    tags = tags_of(root).versions
    if not tags:
        return FIRST_VERSION
    major, minor, _ = version_key(tags[-1].version)
    return f"v{major}.{minor + 1}.0"


def version_of_bundle(root: Path, bundle: Path) -> str | None:
    """Return the newest version that has the same model as a bundle folder, or None if the model was never released."""
    hashes = (model_sha256(bundle), early_model_sha256(bundle))
    return next((r.version for r in reversed(versions(root)) if r.model_sha256 in hashes), None)


def release(root: Path, version: str, bless_report: BlessReport, bento: Path) -> Release:
    """Release `root/bundle` as a version: keep a copy, commit the pipeline's files, add the tag.

    If the bundle's model was released before, nothing is done.

    Args:
        root: the workspace.
        version: the new version, such as "v0.2.0".
        bless_report: the report of the blessing of the Bento.
        bento: the folder of the Bento that was built as this version.

    Returns:
        The new release, or the existing release of the same model.

    Raises:
        GateBlocked: a gate blocks the winner in selection.json, or the waiver of a gate has ended.
        MissingError: there is no bundle, or the workspace is not a Git repository.
    """
    checked_version(version)
    assert bento.name == version, "the Bento was built as this version"
    paths = Paths(root)
    if existing := version_of_bundle(root, paths.bundle):
        return find_version(root, existing)
    card = Card.read(paths.bundle)
    Selection.read(paths.selection, paths.bundle).check_promotable(today())
    if not is_repository(root):
        raise MissingError(
            "a release is a Git commit, but this workspace is not a Git repository with a commit",
            where=root,
            fix="git init && git commit",
        )
    name, plan = load_params(root).release.name, paths.plan(card.candidate)
    folder = _release_folder(root, version)
    copy_folder(paths.bundle, folder / "bundle")
    score = card.scores.get(card.metric)
    title = f"Release {name} {version}: {card.candidate}" + (f", {card.metric} {score.value:.4f}" if score else "")
    new = Release(
        name=name,
        version=version,
        commit=_commit(root, name, title),
        plan_hash=sha256_file(plan) if plan.exists() else None,
        parent=card.lineage.get("parent"),
        model_sha256=model_sha256(folder / "bundle"),
        bundle_sha256=bundle_sha256(folder / "bundle"),
        bless=bless_report,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **card.values_of(ModelRecord),
    )
    write_json(folder / "release.json", new.record())
    tag_version(root, name, version, f"{title}\n\n{json.dumps(new.record(), indent=1)}\n")
    record_commit(bento, new.commit)
    return new


def versions(root: Path) -> list[Release]:
    """List all releases, oldest first, each with the stages that it is in."""
    tags = tags_of(root)
    current = {stage: tags.live(stage) for stage in {event.stage for event in tags.events}}
    releases = []
    for tag in tags.versions:
        record = parse_record(tag)
        if record is not None:
            stages = sorted(stage for stage, version in current.items() if version == tag.version)
            releases.append(record.model_copy(update={"stages": stages}))
    return releases


def find_version(root: Path, version: str) -> Release:
    """Return the release of one version.

    Args:
        root: the workspace.
        version: such as "v0.2.0".

    Raises:
        ConfigError: the text is not a version.
        MissingError: there is no such version; the message lists the existing ones.
    """
    checked_version(version)
    releases = versions(root)
    for candidate in releases:
        if candidate.version == version:
            return candidate
    if any(tag.version == version for tag in tags_of(root).versions):
        raise MissingError(
            "the tag of this version holds no release record",
            found=version,
            fix="the tag was moved or made by hand: fetch the original from a remote (git fetch --tags --force)",
        )
    if not releases:
        raise MissingError(
            "no version has been released yet",
            found=version,
            fix="`segpipe run` releases a winner that passes the gates",
        )
    names = ", ".join(r.version for r in releases)
    raise MissingError("no such version", found=version, expected=f"one of: {names}", fix="segpipe models lists them")


def release_bundle(root: Path, version: str) -> Path:
    """Return the bundle of a version, byte for byte as it was released.

    If the local copy is missing or damaged, it is fetched from the DVC cache or the DVC remote.

    Args:
        root: the workspace.
        version: such as "v0.2.0".

    Returns:
        The folder of the bundle.

    Raises:
        MissingError: there is no such version, or its bundle cannot be fetched.
        DataError: the fetched bundle is not the one that was released.
    """
    record = find_version(root, version)
    bundle = _release_folder(root, version) / "bundle"
    if bundle.exists():
        try:
            check_bundle(bundle, record.bundle_sha256)
        except SegpipeError as error:
            say(f"{error} Restoring it now.")
        else:
            return bundle
    fetch_bundle(root, f"{record.name}@{version}", bundle)
    check_bundle(bundle, record.bundle_sha256)
    write_json(bundle.parent / "release.json", record.record())
    return bundle


def tags_of(root: Path) -> Tags:
    """Return the Git tags of the model of a workspace."""
    return read_tags(root, load_params(root).release.name)


def _release_folder(root: Path, version: str) -> Path:
    return Paths(root).release(checked_version(version))


def _commit(root: Path, name: str, title: str) -> str:
    """Commit the pipeline's files. If HEAD already has a version, the commit may be empty: one commit has at most one version."""
    commit = commit_paths(root, PIPELINE_FILES, title)
    if read_tags(root, name).version_at(commit) is not None:
        commit = commit_paths(root, PIPELINE_FILES, title, allow_empty=True)
    return commit
