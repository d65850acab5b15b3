"""Load a model for scoring: on the engine, and with the number of threads, that suit a whole split of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.inference.engines.checked_graph import SCORING_ENGINES, on_graph
from segpipe.inference.images_at_once import engine_threads
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import TORCH, SegmenterSpec

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader


def trained_for_scoring(trained: Segmenter, folder: Path, reader: ShardReader) -> Segmenter:
    """Return a trained model on the engine that scores it: the graph engine of `SCORING_ENGINES`, checked against torch.

    Args:
        trained: the model on torch, in float32.
        folder: an existing folder for the ONNX graphs.
        reader: the split that is scored.

    Returns:
        The model; `trained` itself if it is a detector or a classical model.

    Raises:
        GraphMismatch: now or at a prediction: the graph cannot be made, or does not agree with torch.
    """
    return on_graph(trained, folder, engine_threads(trained.spec, reader))


def bundle_for_scoring(bundle: Path, reader: ShardReader) -> Segmenter:
    """Load a bundle on the engine that scores trained models, so that both are compared in the same arithmetic.

    The engine that serves the bundle may compute in bfloat16 or in integers.

    Args:
        bundle: the folder of the bundle.
        reader: the split that is scored.

    Returns:
        The model on the engine of `SCORING_ENGINES`, in float32; a bundle without an ONNX graph (a detector) on torch.
    """
    spec = SegmenterSpec.read(bundle)
    if spec.engine == TORCH:
        return Segmenter.from_bundle(bundle, TORCH)
    return Segmenter.from_bundle(bundle, SCORING_ENGINES[spec.dims], engine_threads(spec, reader))
