"""A model as training left it (models/C: segmenter.json and weights.safetensors), ready to segment."""

from __future__ import annotations

from pathlib import Path

from segpipe.inference.network import trained_engine
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec


def load_trained(folder: Path, device: str = "cpu") -> Segmenter:
    """The segmenter of a trained candidate; errors as `trained_engine` raises them, MissingError where there is no model."""
    spec = SegmenterSpec.read(folder)
    return Segmenter(spec, trained_engine(spec, folder, device))
