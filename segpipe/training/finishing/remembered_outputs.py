"""A model that remembers the outputs of its network, so that several searches over the same images run the network once per image.

The outputs are remembered, and not the predictions made from them: whatever a search changes (thresholds, cleaning, instances), its
results are the same to the bit as those of running the network again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from segpipe.inference.detector import DetectorEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from segpipe.inference.detector import Detections
    from segpipe.inference.engines.engine import Batch, Engine
    from segpipe.inference.segmenter import Segmenter

    Outputs = TypeVar("Outputs")

MAX_BYTES = 1 << 29
"""Memory for outputs. Those that do not fit are computed again."""


class OutputMemory:
    """The outputs of networks, by the content of their inputs.

    Args:
        max_bytes: the largest size of all outputs together.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.free_bytes = max_bytes
        self._outputs: dict[tuple[str, bytes], Any] = {}

    def get(
        self, network: str, batch: Batch, compute: Callable[[Batch], Outputs], nbytes: Callable[[Outputs], int]
    ) -> Outputs:
        """Return the outputs for a batch, computed or remembered.

        Args:
            network: name of the network.
            batch: the network's input.
            compute: runs the network.
            nbytes: returns the size of outputs.
        """
        content = np.ascontiguousarray(batch)
        key = network, hashlib.blake2b(content.data, digest_size=16, key=repr(batch.shape).encode()).digest()
        if key in self._outputs:
            outputs: Outputs = self._outputs[key]
            return outputs
        outputs = compute(batch)
        if nbytes(outputs) <= self.free_bytes:
            self._outputs[key] = outputs
            self.free_bytes -= nbytes(outputs)
        return outputs


class RememberingEngine:
    """An engine that runs its network once per input.

    Args:
        engine: the engine.
        memory: where its outputs are remembered.
        network: name of the network in the memory.
    """

    def __init__(self, engine: Engine, memory: OutputMemory, network: str) -> None:
        self.name, self._engine, self._memory, self._network = engine.name, engine, memory, network

    def __call__(self, batch: Batch) -> Batch:
        """Return the logits of a normalised batch. See `Engine.__call__`."""
        logits = self._memory.get(self._network, batch, self._engine, lambda logits: logits.nbytes)
        logits.flags.writeable = False  # they will be used again
        return logits


class RememberingDetectorEngine(DetectorEngine):
    """A detector that runs its network once per input.

    Args:
        engine: the detector.
        memory: where its detections are remembered.
        network: name of the network in the memory.
    """

    def __init__(self, engine: DetectorEngine, memory: OutputMemory, network: str) -> None:
        super().__init__(engine.module, engine.device, engine.autocast, engine.channels_last)
        self._memory, self._network = memory, network

    def detect(self, batch: Batch) -> Detections:
        """Detect the instances of a single normalised image. See `DetectorEngine.detect`."""
        return self._memory.get(self._network, batch, super().detect, lambda d: d.boxes.nbytes + d.masks.nbytes)


def remember_outputs(segmenter: Segmenter, max_bytes: int = MAX_BYTES) -> Segmenter:
    """Return the same model with a memory for the outputs of its network, or of each member of an ensemble.

    Args:
        segmenter: the model. Its weights must not change afterwards.
        max_bytes: the memory for outputs.
    """
    memory = OutputMemory(max_bytes)
    return segmenter.on_engines(lambda model, name: _remembering(model.engine, memory, name))


def _remembering(engine: Engine, memory: OutputMemory, network: str) -> Engine:
    """Return an engine that remembers outputs. network: name of its network in the memory."""
    if isinstance(engine, DetectorEngine):
        return RememberingDetectorEngine(engine, memory, network)
    return RememberingEngine(engine, memory, network)
