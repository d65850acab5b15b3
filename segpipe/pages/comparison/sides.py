"""The two sides of `segpipe compare`: a candidate of a revision, and the test images that both sides were scored on."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError, MissingError
from segpipe.evaluation.metrics_file import MetricsFile
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.gates.selection import SelectionOutline
from segpipe.inference.engines.checked_graph import SCORING_ENGINES
from segpipe.inference.spec import TORCH
from segpipe.words import listed
from segpipe.workspace.changes import State
from segpipe.workspace.revisions import Revision, open_revision, open_workspace

WORKSPACE = "."
_VERSION = re.compile(r"v\d+\.\d+\.\d+")
_CLASSES_NAMED = 8


@dataclass(frozen=True)
class ComparisonSide:
    """A candidate of a revision, and its scores on the test images of that revision."""

    argument: str
    """The argument that the user typed."""
    name: str
    """The name that pages and sentences use."""
    revision: Revision
    candidate: str
    scores: Scores
    metrics: MetricsFile
    """The content of metrics.json."""
    hashes: Mapping[str, str] | None
    """The hashes of image and label of each image, by key; None if the manifest of the revision cannot be read."""
    subject: str
    """Date and subject line of the commit; empty for the workspace."""

    @property
    def state(self) -> State:
        """The data, settings, plan and code that the candidate was made from."""
        code = {
            "segpipe": self.scores.lineage.get("segpipe", ""),
            "commit": self.revision.commit[:10] if self.revision.commit else "not committed",
            "candidate": self.candidate,
        }
        return State.read(self.revision.read, self.candidate, code)


def load_side(root: Path, argument: str) -> ComparisonSide:
    """Load one side of a comparison.

    Args:
        root: The workspace.
        argument: REVISION or REVISION:CANDIDATE. The revision is a version (v0.1.0), a revision of Git, an experiment of DVC, or
            `.` for the workspace; without a candidate, the winner of that revision is loaded.

    Raises:
        MissingError: There is no such revision or candidate, or its scores are neither in Git nor in DVC's cache.
    """
    revision_name, _, named_candidate = argument.partition(":")
    revision = _open(root, revision_name or WORKSPACE)
    label = "workspace" if revision.commit is None else revision_name
    selection = SelectionOutline.parse(revision.read("selection.json"))
    candidate = named_candidate or (selection.winner if selection else None)
    if not candidate:
        raise MissingError(
            "has no winner",
            where=label,
            found="no selection.json" if selection is None else "a selection without a winner",
            fix=f"run `dvc repro select` at that revision, or name a candidate: {revision_name or WORKSPACE}:CANDIDATE",
        )
    content = revision.read(f"evaluation/{candidate}/per_image.parquet")
    if content is None:
        candidates = ", ".join(selection.candidates) if selection else ""
        fetch = f"dvc fetch --all-commits if a remote has them, or git checkout {revision_name} && dvc repro"
        raise MissingError(
            f"the scores of {candidate} are missing",
            where=label,
            expected=f"evaluation/{candidate}/per_image.parquet",
            found=f"candidates {candidates}" if candidates else None,
            fix="dvc repro evaluate" if revision.commit is None else fetch,
        )
    metrics = revision.read(f"evaluation/{candidate}/metrics.json")
    return ComparisonSide(
        argument,
        f"{label} {candidate}" if named_candidate else label,
        revision,
        candidate,
        _read_scores(content),
        MetricsFile.parse(metrics),
        _read_hashes(revision.read("artifacts/manifest.parquet")),
        _commit_subject(root, revision),
    )


def _open(root: Path, name: str) -> Revision:
    from segpipe.release.registry import find_version

    if name == WORKSPACE:
        return open_workspace(root)
    return open_revision(root, f"{find_version(root, name).name}@{name}" if _VERSION.fullmatch(name) else name)


def _commit_subject(root: Path, revision: Revision) -> str:
    from segpipe.workspace.git import git

    return git(root, "log", "-1", "--format=%cs %s", revision.commit) if revision.commit else ""


def _read_scores(content: bytes) -> Scores:
    with tempfile.TemporaryDirectory(prefix="segpipe-compare-") as folder:
        path = Path(folder) / "per_image.parquet"
        path.write_bytes(content)
        return read_scores(path)


def _read_hashes(manifest: bytes | None) -> dict[str, str] | None:
    if manifest is None:
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(manifest), columns=["key", "sha256", "mask_sha256"])
    return {key: f"{image} {mask}" for key, image, mask in zip(*(c.to_pylist() for c in table.columns), strict=True)}


@dataclass(frozen=True)
class SharedImages:
    """The test images that both sides were scored on, with the scores of both."""

    before: Scores
    after: Scores
    """Scores of the same images in the same order."""
    left_out: tuple[int, int]
    """The number of images that only the first, and that only the second side was tested on."""
    changed: int
    """The number of images with the same key whose pixels or labels differ."""
    by_content: bool
    """True if the hashes of the files were compared; otherwise the numbers of labelled pixels of each class were."""
    engines: tuple[str | None, str | None] = (None, None)
    """The engines that scored the two sides; None for evaluations of earlier versions, which did not record it."""

    @property
    def complete(self) -> bool:
        """True if both sides were scored on exactly these images."""
        return self.left_out == (0, 0) and not self.changed

    @property
    def sentence(self) -> str:
        """Description of the images that are compared."""
        count = len(self.after.keys)
        how = "by the hashes of the files" if self.by_content else "by name and labelled pixels"
        if self.complete:
            return f"Both were scored on the same {count} test images (matched {how}).{self._engine_note}"
        parts = [
            f"{number} that only the {side} was tested on"
            for side, number in zip(("first", "second"), self.left_out, strict=True)
            if number
        ]
        parts += [f"{self.changed} whose image or label has changed"] if self.changed else []
        return (
            f"The two were tested on different images. Only the {count} test images that both share (matched {how}) are compared; "
            f"no image is scored again. Left out: {', '.join(parts)}.{self._engine_note}"
        )

    @property
    def _engine_note(self) -> str:
        """A warning if the arithmetic of the two sides may differ, which changes scores by about 0.0001; otherwise empty."""
        first, second = self.engines
        networks = {None, TORCH, *SCORING_ENGINES.values()}  # a classical model is its own engine
        if first == second or not {first, second} <= networks:
            return ""
        first, second = (engine or "one that an earlier version of segpipe did not record" for engine in self.engines)
        return f" Their engines differ ({first}; {second}): differences below 0.0001 may be due to that."


def match_images(before: ComparisonSide, after: ComparisonSide) -> SharedImages:
    """Match the test images of two sides by key and content.

    Neither side is scored on the other's images: it may have been trained on them.

    Raises:
        DataError: The classes differ, or the two sides share no image.
    """
    first, second = before.scores, after.scores
    where = f"{before.name} and {after.name}"
    if (first.classes, first.overlapping) != (second.classes, second.overlapping):
        raise DataError(
            "models with different classes cannot be compared",
            where=where,
            found=f"{listed(first.classes, _CLASSES_NAMED)}; and {listed(second.classes, _CLASSES_NAMED)}",
            fix="compare two versions that are both from before or both from after the classes changed",
        )
    first_prints, second_prints = _fingerprints(before, after)
    keys = [key for key in second_prints if key in first_prints]
    same = [key for key in keys if first_prints[key] == second_prints[key]]
    if not same:
        raise DataError(
            "the two share no test image",
            where=where,
            found=f"{len(first_prints)} and {len(second_prints)} images, {len(keys)} with the same name",
            fix="score one of them on the data of the other: git checkout REVISION, dvc repro evaluate",
        )
    return SharedImages(
        _select(first, same),
        _select(second, same),
        (len(first_prints) - len(keys), len(second_prints) - len(keys)),
        len(keys) - len(same),
        before.hashes is not None and after.hashes is not None,
        (before.metrics.engine, after.metrics.engine),
    )


def _fingerprints(before: ComparisonSide, after: ComparisonSide) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return values by key that identify the content of each side's test images: hashes if both sides have them."""
    if before.hashes is not None and after.hashes is not None:
        return (
            {key: before.hashes.get(key) for key in before.scores.keys},
            {key: after.hashes.get(key) for key in after.scores.keys},
        )
    return _labelled_pixels(before.scores), _labelled_pixels(after.scores)


def _labelled_pixels(scores: Scores) -> dict[str, object]:
    return {key: tuple(scores.tally[index, 1].tolist()) for index, key in enumerate(scores.keys)}


def _select(scores: Scores, keys: list[str]) -> Scores:
    index = {key: i for i, key in enumerate(scores.keys)}
    rows: npt.NDArray[np.intp] = np.array([index[key] for key in keys], np.intp)
    return scores.at(rows)
