"""The two sides of `segpipe compare`: a candidate as a revision knows it, and the test images that both were scored on."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError, MissingError
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.gates.selection import SelectionOutline
from segpipe.pages.report_inputs import section
from segpipe.workspace.changes import State
from segpipe.workspace.revisions import Revision, open_revision, open_workspace

WORKSPACE = "."
_VERSION = re.compile(r"v\d+\.\d+\.\d+")


@dataclass(frozen=True)
class ComparisonSide:
    """A candidate of a revision, and how it did on the test images of that revision.

    word: how the user called it; name: how pages do. contents: the hash of every image and its label, by key; None where the
    revision's manifest can't be had. subject: of the commit, with its date; empty of the workspace.
    """

    word: str
    name: str
    revision: Revision
    candidate: str
    scores: Scores
    metrics: Mapping[str, Any]
    contents: Mapping[str, str] | None
    subject: str

    @property
    def state(self) -> State:
        """What it was made from."""
        code = {
            "segpipe": self.scores.lineage.get("segpipe", ""),
            "commit": self.revision.commit[:10] if self.revision.commit else "not committed",
            "candidate": self.candidate,
        }
        return State.read(self.revision.read, self.candidate, code)


def load_side(root: Path, word: str) -> ComparisonSide:
    """The contender that REVISION or REVISION:CANDIDATE names; without a candidate, the winner of that revision.

    A revision is a version (v0.1.0), anything that Git knows, an experiment of DVC, or `.` for the workspace. Raises MissingError
    where there is no such revision or candidate, or where its scores can't be had.
    """
    asked, _, named = word.partition(":")
    revision = _open(root, asked or WORKSPACE)
    label = "workspace" if revision.commit is None else asked
    selection = SelectionOutline.parse(revision.read("selection.json"))
    candidate = named or (selection.winner if selection else None)
    if not candidate:
        raise MissingError(
            "has no winner",
            where=label,
            found="no selection.json" if selection is None else "a selection without a winner",
            fix=f"dvc repro select there, or name a candidate: {asked or WORKSPACE}:CANDIDATE",
        )
    content = revision.read(f"evaluation/{candidate}/per_image.parquet")
    if content is None:
        candidates = ", ".join(selection.candidates) if selection else ""
        fix = f"dvc fetch --all-commits where a remote has them, or git checkout {asked} && dvc repro"
        raise MissingError(
            f"the scores of {candidate} can't be had",
            where=label,
            expected=f"evaluation/{candidate}/per_image.parquet",
            found=f"candidates {candidates}" if candidates else None,
            fix="dvc repro evaluate" if revision.commit is None else fix,
        )
    return ComparisonSide(
        word,
        f"{label} {candidate}" if named else label,
        revision,
        candidate,
        _scores(content),
        section(_json(revision.read(f"evaluation/{candidate}/metrics.json"))),
        _contents(revision.read("artifacts/manifest.parquet")),
        _subject(root, revision),
    )


def _open(root: Path, asked: str) -> Revision:
    from segpipe.release.registry import find_version

    if asked == WORKSPACE:
        return open_workspace(root)
    return open_revision(root, f"{find_version(root, asked).name}@{asked}" if _VERSION.fullmatch(asked) else asked)


def _subject(root: Path, revision: Revision) -> str:
    from segpipe.workspace.git import git

    return git(root, "log", "-1", "--format=%cs %s", revision.commit) if revision.commit else ""


def _json(content: bytes | None) -> Any:
    import json

    return json.loads(content) if content else {}


def _scores(content: bytes) -> Scores:
    with tempfile.TemporaryDirectory(prefix="segpipe-compare-") as folder:
        path = Path(folder) / "per_image.parquet"
        path.write_bytes(content)
        return read_scores(path)


def _contents(manifest: bytes | None) -> dict[str, str] | None:
    if manifest is None:
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(manifest), columns=["key", "sha256", "mask_sha256"])
    return {key: f"{image} {mask}" for key, image, mask in zip(*(c.to_pylist() for c in table.columns), strict=True)}


@dataclass(frozen=True)
class SharedImages:
    """The test images that two contenders were both scored on, and how they did on these.

    before, after: scores of the same images in the same order. left_out: images that only one of them was tested on, of the first
    and of the second; changed: those whose pixels or labels are no longer the same. by_content: whether hashes of the files were
    compared; else labelled pixels by class.
    """

    before: Scores
    after: Scores
    left_out: tuple[int, int]
    changed: int
    by_content: bool

    @property
    def everything(self) -> bool:
        """Whether both were scored on just these images."""
        return self.left_out == (0, 0) and not self.changed

    @property
    def sentence(self) -> str:
        """What was compared, for people."""
        n = len(self.after.keys)
        how = "file by file" if self.by_content else "by name and labelled pixels"
        if self.everything:
            return f"Both were scored on the same {n} test images ({how})."
        parts = [
            f"{count} only the {which} was tested on"
            for which, count in zip(("first", "second"), self.left_out, strict=True)
            if count
        ]
        parts += [f"{self.changed} whose image or label has changed"] if self.changed else []
        return (
            f"The two were tested on different images; only the {n} that both share ({how}) are compared, and nothing was scored "
            f"anew. Left out: {', '.join(parts)}."
        )


def match_images(before: ComparisonSide, after: ComparisonSide) -> SharedImages:
    """Match the test images of two contenders by key and content.

    Neither is scored on the other's images: it may have been trained on them. Raises DataError where classes differ, or where no
    image is shared.
    """
    first, second = before.scores, after.scores
    if (first.classes, first.overlapping) != (second.classes, second.overlapping):
        raise DataError(
            "models of different classes can't be compared",
            where=f"{before.name} and {after.name}",
            found=f"{', '.join(first.classes[:8])} and {', '.join(second.classes[:8])}",
            fix="compare versions from before or after the classes changed",
        )
    one, other = _prints(before, after)
    keys = [key for key in other if key in one]
    same = [key for key in keys if one[key] == other[key]]
    if not same:
        raise DataError(
            "no test image is shared",
            where=f"{before.name} and {after.name}",
            found=f"{len(one)} and {len(other)} images, {len(keys)} of the same name",
            fix="score one of them on the other's data: git checkout REVISION, dvc repro evaluate",
        )
    return SharedImages(
        _at(first, same),
        _at(second, same),
        (len(one) - len(keys), len(other) - len(keys)),
        len(keys) - len(same),
        before.contents is not None and after.contents is not None,
    )


def _prints(before: ComparisonSide, after: ComparisonSide) -> tuple[dict[str, object], dict[str, object]]:
    """What tells whether two test images of a name are the same, by key: hashes where both sides have them."""
    if before.contents is not None and after.contents is not None:
        return tuple({key: side.contents.get(key) for key in side.scores.keys} for side in (before, after))  # type: ignore[union-attr, return-value]
    return _labelled(before.scores), _labelled(after.scores)


def _labelled(scores: Scores) -> dict[str, object]:
    return {key: tuple(scores.tally[place, 1].tolist()) for place, key in enumerate(scores.keys)}


def _at(scores: Scores, keys: list[str]) -> Scores:
    place = {key: i for i, key in enumerate(scores.keys)}
    where: npt.NDArray[np.intp] = np.array([place[key] for key in keys], np.intp)
    return scores.at(where)
