"""Release and promote the winner of a selection, as far as the gates and the settings allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe.gates.selection import Selection
from segpipe.gates.waivers import today
from segpipe.release import promotion, registry
from segpipe.release.run_summary import RunSummary
from segpipe.workspace.paths import Paths

Step = Callable[..., Any]
"""Calls a function: `step(label, function, *arguments)` returns `function(*arguments)`. A flow records the call as a task."""


@dataclass(frozen=True)
class ReleaseDecision:
    """The steps that are still to do for the winner.

    selection: the content of selection.json. version: the version of the winner, None if it has not been released. release, promote:
    whether this is still to do; both are False if a gate blocks.
    """

    selection: Selection
    version: str | None
    release: bool
    promote: bool

    @property
    def nothing_to_do(self) -> bool:
        """True if the winner is released and promoted as far as it may be."""
        return not (self.release or self.promote)


def decide_release(root: Path, stage: str, promote: str) -> ReleaseDecision:
    """Decide whether the winner is to be released and promoted.

    Args:
        root: the workspace; its stages are up to date.
        stage: the stage to promote to, such as "prod".
        promote: "auto" or "manual".

    Raises:
        DataError: selection.json is not valid.
    """
    paths = Paths(root)
    selection = Selection.read(paths.selection, paths.bundle)
    if not selection.promotable_on(today()):
        return ReleaseDecision(selection, None, release=False, promote=False)
    version = registry.version_of_bundle(root, paths.bundle)
    # a version that was rolled back is not promoted again
    to_promote = promote == "auto" and (version is None or not promotion.was_in(root, version, stage))
    return ReleaseDecision(selection, version, release=version is None, promote=to_promote)


def release_winner(
    root: Path, stage: str, promote: str, summary: RunSummary, step: Step, report: Callable[[str], None]
) -> None:
    """Release and promote the winner if that is still to do, and complete the summary of the run.

    Args:
        root: the workspace; its stages are up to date.
        stage: the stage to promote to, such as "prod".
        promote: "auto" or "manual".
        summary: gets the selection, the versions and what was done.
        step: calls each function that has side effects.
        report: prints a line for the user.
    """
    decision = decide_release(root, stage, promote)
    complete_summary(root, stage, decision, summary)
    version = decision.version
    if decision.release:
        version = registry.next_version(root)
        _release(root, version, step, report)
        summary.released = True
    if decision.promote:
        assert version is not None, "a winner is promoted only after its release"
        step("promote", promotion.promote, root, version, stage)
        report(f"{version} is live in {stage}")
        summary.promoted = True
    summary.version, summary.live = version, promotion.live(root, stage)


def complete_summary(root: Path, stage: str, decision: ReleaseDecision, summary: RunSummary) -> None:
    """Write into the summary what the decision says and which version is live now."""
    selection = summary.selection = decision.selection
    summary.blocked = None if selection.promotable_on(today()) else selection.outcome_on(today())
    summary.version, summary.live = decision.version, promotion.live(root, stage)


def _release(root: Path, version: str, step: Step, report: Callable[[str], None]) -> None:
    from segpipe.release.packaging.bento import build_bento
    from segpipe.release.packaging.blessing import bless

    report(f"{version}: building the Bento")
    bento = step("bento", build_bento, root, version)
    report(f"{version}: serving it once, to compare its answers with the golden images")
    bless_report = step("bless", bless, bento, Paths(root).bundle)
    step("release", registry.release, root, version, bless_report, bento)
    report(f"{version}: committed and tagged")
