"""Evaluate an ensemble of cross-validation on its own training images: each is predicted by the member that was not trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segpipe.inference.engines.engine import Engine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import Prediction, Sample

FOLDS_FILE = "folds.json"
"""File next to the weights of an ensemble: the fold of each image of train and val, by the image's key."""


class OutOfFoldSegmenter(Segmenter):
    """An ensemble whose `segment` uses only the member that was not trained on the sample; `predict` uses all members.

    Args:
        spec: Everything but the weights.
        engine: The engine of the whole ensemble.
        members: The engine of each member, by the fold that it was not trained on.
        fold_of: The fold of a sample, by its key. A sample that is in no fold is predicted by all members.
    """

    def __init__(
        self, spec: SegmenterSpec, engine: Engine, members: Sequence[Engine], fold_of: Mapping[str, int]
    ) -> None:
        super().__init__(spec, engine)
        self.fold_of = fold_of
        self.members = [Segmenter(spec, member) for member in members]

    def segment(self, sample: Sample, probabilities: bool = False, instances: bool = False) -> Prediction:
        """Segment a sample with the member that was not trained on it. See `Segmenter.segment`."""
        fold = self.fold_of.get(sample.key)
        if fold is None:
            return super().segment(sample, probabilities, instances)
        return self.members[fold].segment(sample, probabilities, instances)

    def with_changes(self, **changes: Any) -> OutOfFoldSegmenter:
        """Return the same model with other settings. See `Segmenter.with_changes`."""
        spec, engines = self.spec.model_copy(update=changes), [member.engine for member in self.members]
        return OutOfFoldSegmenter(spec, self.engine, engines, self.fold_of)

    def on_engines(self, load: Callable[[Segmenter, str], Engine]) -> OutOfFoldSegmenter:
        """Return the same model on other engines. See `Segmenter.on_engines`."""
        members = [load(member, f"member-{index}") for index, member in enumerate(self.members)]
        return OutOfFoldSegmenter(self.spec, load(self, "network"), members, self.fold_of)
