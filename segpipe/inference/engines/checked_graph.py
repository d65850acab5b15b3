"""Score a trained network as an ONNX graph in float32, which is faster than torch, and check that both give the same result.

torch in float32 is the reference. The engines of graphs compute the same network with other kernels, so the last digits differ. They
take a quarter to six sevenths of the processor time of torch (benchmarks/evaluation.py measures it).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import SegpipeError
from segpipe.inference.detector import DetectorEngine
from segpipe.inference.engines.engine import Batch, Engine, TorchEngine, graph_engine
from segpipe.inference.engines.graph_export import export_graph

if TYPE_CHECKING:
    from segpipe.inference.outputs import Outputs
    from segpipe.inference.segmenter import Segmenter

SCORING_ENGINES: dict[int, str] = {2: "onnxruntime", 3: "openvino"}
"""The graph engine that scores networks for images and for volumes, by dimensions: the fastest one that computes in float32. (3D
convolutions of ONNX Runtime can be slower than those of torch.)"""

MAX_VALUE_DIFFERENCE = 1e-3
"""Largest accepted difference of a probability (or of the distance of a network that predicts it) between the engines."""
MAX_LABEL_DIFFERENCE = 1e-4
"""Largest accepted share of the pixels of a batch whose label differs: scores then differ by about as much."""

_CHECKED_CALLS = 3
"""The first calls are all checked, then the first call for each input shape: a traced network may be wrong for other shapes."""
_CHECKED_SHAPES = 6
"""After so many input shapes, further ones are not checked: a graph that is right for these does not depend on the shape."""


class GraphMismatch(SegpipeError):
    """The ONNX graph of a network cannot be made, or does not compute what the network computes on torch."""


class CheckedGraphEngine:
    """Runs a network as an ONNX graph, and compares the result with torch at the first calls and at each new input shape.

    Args:
        graph: the network on ONNX Runtime.
        reference: the same network on torch, in float32.
        outputs: the meaning of the network's channels.

    Attributes:
        graph: as the argument.
    """

    def __init__(self, graph: Engine, reference: Engine, outputs: Outputs) -> None:
        self.name, self.graph = graph.name, graph
        self._reference, self._outputs = reference, outputs
        self._lock = threading.Lock()
        self._calls = 0
        self._shapes: set[tuple[int, ...]] = set()

    def __call__(self, batch: Batch) -> Batch:
        """Compute the logits of a normalised batch. See `Engine.__call__`.

        Raises:
            GraphMismatch: the graph does not agree with torch within `MAX_VALUE_DIFFERENCE` and `MAX_LABEL_DIFFERENCE`.
        """
        logits = self.graph(batch)
        if self._is_checked(batch.shape):
            self._compare(logits, self._reference(batch))
        return logits

    def _is_checked(self, shape: tuple[int, ...]) -> bool:
        with self._lock:
            self._calls += 1
            new_shape = shape not in self._shapes and len(self._shapes) < _CHECKED_SHAPES
            self._shapes |= {shape} if new_shape else set()
            return new_shape or self._calls <= _CHECKED_CALLS

    def _compare(self, logits: Batch, expected: Batch) -> None:
        if logits.shape != expected.shape:
            raise GraphMismatch("the ONNX graph has another shape", found=logits.shape, expected=expected.shape)
        values, expected_values = self._outputs.values(logits), self._outputs.values(expected)
        # `not <=` instead of `>`, so that NaN is a mismatch
        if not (difference := float(np.abs(values - expected_values).max())) <= MAX_VALUE_DIFFERENCE:
            raise GraphMismatch(
                "the ONNX graph gives other probabilities than torch",
                found=f"a difference of {difference:.2g}",
                expected=f"at most {MAX_VALUE_DIFFERENCE:g}",
            )
        labels, expected_labels = (
            np.stack([self._outputs.labels_of_logits(image) for image in each]) for each in (logits, expected)
        )
        differing = int((labels != expected_labels).sum())
        if differing > max(1, MAX_LABEL_DIFFERENCE * labels.size):  # one pixel in a small image can be a tie
            raise GraphMismatch(
                "the ONNX graph gives other classes than torch",
                found=f"{differing:,} of {labels.size:,} pixels",
                expected=f"at most {MAX_LABEL_DIFFERENCE:.2%}",
            )


def on_graph(trained: Segmenter, folder: Path, threads: int = 0, check: bool = True) -> Segmenter:
    """Return a trained model with its network on the engine of `SCORING_ENGINES`.

    Args:
        trained: the model on torch, in float32.
        folder: the folder for the ONNX graphs, which must exist. A graph that it already has is used again.
        threads: the number of threads of the engine; 0: all cores.
        check: compare the results with torch (`CheckedGraphEngine`), which takes time.

    Returns:
        The model; `trained` itself if it is a detector or a classical model, which have no graph.

    Raises:
        GraphMismatch: the network cannot be written as a graph, or the engine does not run it.
    """
    if not isinstance(trained.engine, TorchEngine) or isinstance(trained.engine, DetectorEngine):
        return trained

    def load(model: Segmenter, name: str) -> Engine:
        path = folder / f"{name}.onnx"
        try:
            if not path.exists():
                export_graph(model, path)
            graph = graph_engine(SCORING_ENGINES[model.spec.dims], path, threads)
        except Exception as error:
            path.unlink(missing_ok=True)
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise GraphMismatch(f"the network has no ONNX graph: {line[:160]}") from error
        return CheckedGraphEngine(graph, model.engine, model.spec.outputs) if check else graph

    return trained.on_engines(load)
