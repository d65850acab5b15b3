"""Can a version still be traced and rebuilt? Its tag, its bundle out of the DVC cache, its golden masks, and (asked for) its training."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel

from segpipe.errors import SegpipeError
from segpipe.files import sha256_file
from segpipe.inference.segmenter import Segmenter
from segpipe.progress import say
from segpipe.release.bundle import bundle_sha256, replay_golden
from segpipe.release.registry import find_version
from segpipe.release.release_record import Release
from segpipe.workspace.dvc import fetch_bundle, run_dvc
from segpipe.workspace.git import git

BEFORE_PLAN = ("ingest", "validate", "prepare")
"""Stages that a rebuild repeats. The plan is not made again: it is pinned in Git, and so a rebuild trains by it."""


class Check(BaseModel):
    """One thing that was looked at."""

    name: str
    ok: bool
    sentence: str


class VerifyReport(BaseModel):
    """What was looked at, and what was found."""

    version: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(check.ok for check in self.checks)

    def lines(self) -> list[str]:
        """The report in words, a line a check."""
        return [f"{'ok ' if check.ok else 'BAD'}  {check.name}: {check.sentence}" for check in self.checks]


def verify(root: Path, version: str, rebuild: bool = False) -> VerifyReport:
    """Look at a version again: does its commit hold what was released, and does the bundle still answer as it did?

    rebuild: also train it anew, in a clone at its tag with nothing taken from the run cache, and compare the weights. Raises
    MissingError where there is no such version.
    """
    made = find_version(root, version)
    tag = f"{made.name}@{version}"
    checks = [Check(name="tag", ok=True, sentence=f"{tag} is commit {made.commit[:10]}, made {made.created_at}")]
    with tempfile.TemporaryDirectory(prefix="segpipe-verify-") as folder:
        bundle = Path(folder) / "bundle"
        try:
            fetch_bundle(root, tag, bundle)
        except SegpipeError as error:
            checks.append(Check(name="bundle", ok=False, sentence=str(error)))
        else:
            checks += [_same_bundle(bundle, made), _same_answers(bundle)]
        if rebuild:
            checks.append(_same_weights(root, made, tag, Path(folder) / "clone"))
    return VerifyReport(version=version, checks=checks)


def _same_bundle(bundle: Path, made: Release) -> Check:
    found = bundle_sha256(bundle)
    if found == made.bundle_sha256:
        return Check(
            name="bundle", ok=True, sentence=f"what DVC has for that commit is what was released, sha256 {found[:12]}"
        )
    sentence = f"DVC has sha256 {found[:12]} for that commit, released was {made.bundle_sha256[:12]}"
    return Check(name="bundle", ok=False, sentence=sentence)


def _same_answers(bundle: Path) -> Check:
    compared = replay_golden(Segmenter.from_bundle(bundle), bundle)
    if compared.identical:
        sentence = f"{compared.images} golden images give their masks, all {compared.pixels:,} pixels"
    else:
        share = compared.differing / compared.pixels
        sentence = (
            f"{compared.differing:,} of {compared.pixels:,} pixels ({share:.4%}) differ, the most in {compared.worst}"
        )
    return Check(name="golden masks", ok=compared.identical, sentence=sentence)


def _same_weights(root: Path, made: Release, tag: str, clone: Path) -> Check:
    git(root, "clone", "--quiet", "--no-checkout", str(root.resolve()), str(clone))
    git(clone, "checkout", "--quiet", "--detach", tag)
    try:
        cache = run_dvc(root, "cache", "dir")
        run_dvc(clone, "config", "--local", "cache.dir", str((root / cache).resolve()))
        run_dvc(clone, "checkout", "data.dvc")
        for stage in (*BEFORE_PLAN, f"train@{made.candidate}"):
            say(f"verify: {stage}")
            run_dvc(clone, "repro", "--single-item", "--force", "--no-run-cache", "--no-commit", stage)
    except SegpipeError as error:
        return Check(name="rebuild", ok=False, sentence=str(error))
    found = sha256_file(clone / "models" / made.candidate / "weights.safetensors")
    if found == made.weights_sha256:
        return Check(name="rebuild", ok=True, sentence=f"training again gives the same weights, sha256 {found[:12]}")
    sentence = f"training again gives weights {found[:12]}, released were {made.weights_sha256[:12]}"
    return Check(name="rebuild", ok=False, sentence=f"{sentence} (same machine kind and same libraries?)")
