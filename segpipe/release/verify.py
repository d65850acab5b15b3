"""Verify a release: its tag, its bundle in the DVC cache, its golden masks and, on request, its training."""

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
from segpipe.workspace.paths import Paths

STAGES_BEFORE_PLAN = ("ingest", "validate", "prepare")
"""Stages that a rebuild repeats. The plan is not made again: it is in Git, and the rebuild trains by it."""


class Check(BaseModel):
    """The result of one check."""

    name: str
    ok: bool
    sentence: str


class VerifyReport(BaseModel):
    """The results of all checks of a version."""

    version: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """True if every check passed."""
        return all(check.ok for check in self.checks)

    def lines(self) -> list[str]:
        """Return the report as text, one line per check."""
        return [f"{'ok ' if check.ok else 'BAD'}  {check.name}: {check.sentence}" for check in self.checks]


def verify(root: Path, version: str, rebuild: bool = False) -> VerifyReport:
    """Check that the commit of a version still holds what was released, and that the bundle still gives its golden masks.

    Args:
        root: the workspace.
        version: such as "v0.2.0".
        rebuild: also train again, in a clone at the version's tag and without the run cache, and compare the weights.

    Raises:
        MissingError: there is no such version.
    """
    release = find_version(root, version)
    tag = f"{release.name}@{version}"
    checks = [
        Check(name="tag", ok=True, sentence=f"{tag} is commit {release.commit[:10]}, created {release.created_at}")
    ]
    with tempfile.TemporaryDirectory(prefix="segpipe-verify-") as folder:
        bundle = Path(folder) / "bundle"
        try:
            fetch_bundle(root, tag, bundle)
        except SegpipeError as error:
            checks.append(Check(name="bundle", ok=False, sentence=str(error)))
        else:
            checks += [_check_bundle(bundle, release), _check_masks(bundle)]
        if rebuild:
            checks.append(_check_weights(root, release, tag, Path(folder) / "clone"))
    return VerifyReport(version=version, checks=checks)


def _check_bundle(bundle: Path, release: Release) -> Check:
    actual, expected = bundle_sha256(bundle), release.bundle_sha256
    if actual == expected:
        sentence = f"the bundle in the DVC cache is the one that was released, sha256 {actual[:12]}"
    else:
        sentence = f"the bundle in the DVC cache has sha256 {actual[:12]}, the released one has {expected[:12]}"
    return Check(name="bundle", ok=actual == expected, sentence=sentence)


def _check_masks(bundle: Path) -> Check:
    comparison = replay_golden(Segmenter.from_bundle(bundle), bundle)
    if comparison.identical:
        sentence = f"all {comparison.pixels:,} pixels of {comparison.images} golden images have the expected class"
    else:
        share = comparison.differing / comparison.pixels
        sentence = (
            f"{comparison.differing:,} of {comparison.pixels:,} pixels ({share:.4%}) differ, the most in "
            f"{comparison.worst}"
        )
    return Check(name="golden masks", ok=comparison.identical, sentence=sentence)


def _check_weights(root: Path, release: Release, tag: str, clone: Path) -> Check:
    git(root, "clone", "--quiet", "--no-checkout", str(root.resolve()), str(clone))
    git(clone, "checkout", "--quiet", "--detach", tag)
    try:
        cache = run_dvc(root, "cache", "dir")
        run_dvc(clone, "config", "--local", "cache.dir", str((root / cache).resolve()))
        run_dvc(clone, "checkout", "data.dvc")
        for stage in (*STAGES_BEFORE_PLAN, f"train@{release.candidate}"):
            say(f"verify: {stage}")
            run_dvc(clone, "repro", "--single-item", "--force", "--no-run-cache", "--no-commit", stage)
    except SegpipeError as error:
        return Check(name="rebuild", ok=False, sentence=str(error))
    actual = sha256_file(Paths(clone).model(release.candidate) / "weights.safetensors")
    if actual == release.weights_sha256:
        return Check(name="rebuild", ok=True, sentence=f"training again gives the same weights, sha256 {actual[:12]}")
    sentence = (
        f"training again gives weights {actual[:12]}, the released weights are {release.weights_sha256[:12]} "
        "(is this the same kind of machine, with the same libraries?)"
    )
    return Check(name="rebuild", ok=False, sentence=sentence)
