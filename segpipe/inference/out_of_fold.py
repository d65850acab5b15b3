"""An ensemble of cross-validation that can be judged by the images that it was trained on: each by the member that never saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segpipe.inference.engines.engine import Engine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import Prediction, Sample

FOLDS_FILE = "folds.json"
"""Beside the weights of an ensemble, as training left it: {key: the fold of an image of train or val}."""


class OutOfFoldSegmenter(Segmenter):
    """All members together, as a `Segmenter`; but `segment` lets the member that left a sample's fold out answer alone.

    members: the engine of each, by the fold that it left out. fold_of: by key; a sample that is in no fold is answered by all.
    """

    def __init__(
        self, spec: SegmenterSpec, engine: Engine, members: Sequence[Engine], fold_of: Mapping[str, int]
    ) -> None:
        super().__init__(spec, engine)
        self.fold_of = fold_of
        self._members = [Segmenter(spec, member) for member in members]

    def segment(self, sample: Sample, probabilities: bool = False, instances: bool = False) -> Prediction:
        """Segment a sample by whoever has not learned from it."""
        fold = self.fold_of.get(sample.key)
        if fold is None:
            return super().segment(sample, probabilities, instances)
        return self._members[fold].segment(sample, probabilities, instances)

    def but(self, **changes: Any) -> OutOfFoldSegmenter:
        """The same model with other settings."""
        spec, engines = self.spec.model_copy(update=changes), [member.engine for member in self._members]
        return OutOfFoldSegmenter(spec, self.engine, engines, self.fold_of)
