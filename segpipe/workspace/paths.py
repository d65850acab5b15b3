"""The paths of the files and folders of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE_DIR = ".segpipe"
"""Folder for segpipe's own files in a workspace: locks, checkpoints, releases. Git and DVC ignore it."""


@dataclass(frozen=True)
class Paths:
    """The paths of a workspace. The outs of stages have the same paths in dvc.yaml."""

    root: Path

    @property
    def data(self) -> Path:
        """Folder: the labelled images."""
        return self.root / "data"

    @property
    def manifest(self) -> Path:
        """The table with one row per image, written by `ingest`."""
        return self.root / "artifacts" / "manifest.parquet"

    @property
    def cache(self) -> Path:
        """Folder: the cache of `ingest`, with rows of files that it has read before. Not an out of a stage, so DVC does not delete it."""
        return self.state / "ingest"

    @property
    def fingerprint(self) -> Path:
        """The summary of the dataset, written by `ingest`."""
        return self.root / "artifacts" / "fingerprint.json"

    @property
    def validation(self) -> Path:
        """Folder: the findings of `validate` and their page."""
        return self.root / "reports" / "validation"

    @property
    def findings(self) -> Path:
        """The findings of `validate` as JSON."""
        return self.validation / "findings.json"

    @property
    def splits(self) -> Path:
        """The table that assigns each image to a split, written by `prepare`."""
        return self.root / "artifacts" / "splits.parquet"

    @property
    def shards(self) -> Path:
        """Folder: the decoded images as memory-mapped files, written by `prepare`."""
        return self.root / "artifacts" / "shards"

    @property
    def selection(self) -> Path:
        """The ranking, the winner and the verdicts of the gates, written by `select`."""
        return self.root / "selection.json"

    @property
    def report(self) -> Path:
        """The report page, written by `select`."""
        return self.root / "reports" / "report.html"

    @property
    def bundle(self) -> Path:
        """Folder: the exported winner, written by `export`."""
        return self.root / "bundle"

    @property
    def champion(self) -> Path:
        """The name of the released version that gates compare with."""
        return self.root / "champion.json"

    @property
    def reference(self) -> Path:
        """Statistics of the images that the champion was trained on."""
        return self.root / "reference.json"

    @property
    def models(self) -> Path:
        """Folder: the trained candidates, one folder each."""
        return self.root / "models"

    @property
    def state(self) -> Path:
        """Folder: segpipe's own files, such as locks, checkpoints and releases. Git and DVC ignore it."""
        return self.root / STATE_DIR

    @property
    def data_page(self) -> Path:
        """The page of `segpipe data stats`."""
        return self.root / "reports" / "data.html"

    @property
    def suspects_page(self) -> Path:
        """The page of `segpipe data suspects`."""
        return self.root / "reports" / "suspects.html"

    @property
    def comparison_page(self) -> Path:
        """The page of `segpipe compare`."""
        return self.root / "reports" / "compare.html"

    @property
    def predictions(self) -> Path:
        """Folder: masks and overlays of predicted images."""
        return self.root / "predictions"

    @property
    def logs(self) -> Path:
        """Folder: the log files of runs, with every line of every stage."""
        return self.state / "logs"

    @property
    def durations(self) -> Path:
        """The duration of the last run of each stage, from which the time that a run takes is estimated."""
        return self.state / "durations.json"

    def flow(self, name: str) -> Path:
        """The script of a flow."""
        return self.root / "flows" / f"{name}.py"

    def release(self, version: str) -> Path:
        """Folder: the local copy of a released version: its record, its bundle, its trained model."""
        return self.state / "releases" / version

    def endpoint(self, stage: str) -> Path:
        """The file that tells running servers which version is live in a stage."""
        return self.state / "endpoints" / f"{stage}.json"

    def outcome(self, stage: str) -> Path:
        """The file in which a stage of the pipeline leaves its exit code and its error line."""
        return self.state / "outcomes" / f"{stage}.json"

    def plan(self, name: str) -> Path:
        """The plan of a candidate, written by `plan`."""
        return self.root / "plans" / f"{name}.json"

    def model(self, name: str) -> Path:
        """Folder: a trained candidate, written by `train`."""
        return self.models / name

    def training(self, name: str) -> Path:
        """Folder: curves and timings of a candidate's training, written by `train`."""
        return self.root / "training" / name

    def checkpoints(self, name: str) -> Path:
        """Folder: checkpoints, from which a killed training continues. Not an out of a stage, so DVC does not delete it."""
        return self.state / "checkpoints" / name

    def evaluation(self, name: str) -> Path:
        """Folder: scores of a candidate on the test split, written by `evaluate`."""
        return self.root / "evaluation" / name

    def scores(self, name: str) -> Path:
        """The table with the scores of a candidate, one row per test image."""
        return self.evaluation(name) / "per_image.parquet"

    def metrics(self, name: str) -> Path:
        """The metrics of a candidate on the validation and test splits."""
        return self.evaluation(name) / "metrics.json"

    def bottleneck(self, name: str) -> Path:
        """The time that each part of a candidate's training step takes, written by `train`."""
        return self.training(name) / "bottleneck.json"
