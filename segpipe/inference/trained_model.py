"""A model as training left it (models/C: segmenter.json and weights.safetensors), ready to segment."""

from __future__ import annotations

from pathlib import Path

from segpipe.files import read_json
from segpipe.inference.out_of_fold import FOLDS_FILE, OutOfFoldSegmenter
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_engine import torch_engine, trained_engine


def load_trained(folder: Path, device: str = "cpu") -> Segmenter:
    """The segmenter of a trained candidate, of several members an `OutOfFold`.

    Errors as `trained_engine` raises them, MissingError where there is no model.
    """
    spec = SegmenterSpec.read(folder)
    engine = trained_engine(spec, folder, device)
    if spec.members == 1:
        return Segmenter(spec, engine)
    members = [torch_engine(spec.task, network, device) for network in engine.module.members]  # type: ignore[attr-defined]
    return OutOfFoldSegmenter(spec, engine, members, read_json(folder / FOLDS_FILE))
