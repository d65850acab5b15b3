"""Load a trained candidate: the folder models/CANDIDATE with segmenter.json and weights.safetensors."""

from __future__ import annotations

from pathlib import Path

from segpipe.files import read_json
from segpipe.inference.out_of_fold import FOLDS_FILE, OutOfFoldSegmenter
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_engine import torch_engine, trained_engine


def load_trained(folder: Path, device: str = "cpu") -> Segmenter:
    """Load the model that training has written.

    Args:
        folder: models/CANDIDATE, with segmenter.json and weights.safetensors.
        device: torch device to run on, for example "cpu" or "cuda".

    Returns:
        A segmenter; an `OutOfFoldSegmenter` for an ensemble.

    Raises:
        MissingError: The folder has no segmenter.json or no weights.
        ConfigError: segmenter.json is invalid, or the weights do not fit it.
    """
    spec = SegmenterSpec.read(folder)
    engine = trained_engine(spec, folder, device)
    if spec.members == 1:
        return Segmenter(spec, engine)
    members = [torch_engine(spec.task, network, device) for network in engine.module.members]  # type: ignore[attr-defined]
    return OutOfFoldSegmenter(spec, engine, members, read_json(folder / FOLDS_FILE))
