"""Where things lie in a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE_DIR = ".segpipe"
"""What segpipe keeps in a workspace for itself: locks, checkpoints, releases. Neither Git nor DVC sees it."""


@dataclass(frozen=True)
class Paths:
    """Where the outs of the stages lie in a workspace; dvc.yaml names the same places."""

    root: Path

    @property
    def data(self) -> Path:
        """The labelled images."""
        return self.root / "data"

    @property
    def manifest(self) -> Path:
        """A row about each image."""
        return self.root / "artifacts" / "manifest.parquet"

    @property
    def cache(self) -> Path:
        """What `ingest` remembers of files it has read; no out of a stage, so that DVC leaves it alone."""
        return self.state / "ingest"

    @property
    def fingerprint(self) -> Path:
        """The dataset in numbers."""
        return self.root / "artifacts" / "fingerprint.json"

    @property
    def validation(self) -> Path:
        """Findings and their page."""
        return self.root / "reports" / "validation"

    @property
    def findings(self) -> Path:
        """The verdict of validation, for programs."""
        return self.validation / "findings.json"

    @property
    def splits(self) -> Path:
        """Which image stands in which split."""
        return self.root / "artifacts" / "splits.parquet"

    @property
    def shards(self) -> Path:
        """Decoded images, memory-mapped."""
        return self.root / "artifacts" / "shards"

    @property
    def selection(self) -> Path:
        """The winner and the verdicts."""
        return self.root / "selection.json"

    @property
    def report(self) -> Path:
        """The page that people read."""
        return self.root / "reports" / "report.html"

    @property
    def bundle(self) -> Path:
        """The winner, exported."""
        return self.root / "bundle"

    @property
    def champion(self) -> Path:
        """The released version that gates compare with."""
        return self.root / "champion.json"

    @property
    def reference(self) -> Path:
        """What the images were like that the champion was trained on."""
        return self.root / "reference.json"

    @property
    def models(self) -> Path:
        """The trained candidates, a folder each."""
        return self.root / "models"

    @property
    def state(self) -> Path:
        """What segpipe keeps for itself: locks, checkpoints, releases. Neither Git nor DVC sees it."""
        return self.root / STATE_DIR

    def plan(self, name: str) -> Path:
        """How a candidate is trained."""
        return self.root / "plans" / f"{name}.json"

    def model(self, name: str) -> Path:
        """A trained candidate."""
        return self.models / name

    def training(self, name: str) -> Path:
        """Curves and timings of a candidate's training."""
        return self.root / "training" / name

    def checkpoints(self, name: str) -> Path:
        """What a killed training continues from; no out of a stage, so that DVC leaves it alone."""
        return self.state / "checkpoints" / name

    def evaluation(self, name: str) -> Path:
        """Scores of a candidate on the test split."""
        return self.root / "evaluation" / name
