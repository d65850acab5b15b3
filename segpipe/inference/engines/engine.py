"""What runs a network: torch, ONNX Runtime or OpenVINO, behind one call.

An engine maps a normalised batch (N, C, H, W), float32, with H and W multiples of the model's stride, to logits
(N, channels, H, W), float32, whose channels `segpipe.inference.outputs` knows; of volumes (N, C, D, H, W), which have the shape
of the model's window.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from segpipe.errors import ConfigError, MissingError

if TYPE_CHECKING:
    import torch

Batch = npt.NDArray[np.float32]


def softmax(scores: npt.NDArray[np.float32], axis: int = 0) -> npt.NDArray[np.float32]:
    """Probabilities along an axis, without overflow."""
    exp = np.exp(scores - scores.max(axis, keepdims=True))
    return exp / exp.sum(axis, keepdims=True)  # type: ignore[no-any-return]


class Engine(Protocol):
    """A network that is ready to run."""

    name: str

    def __call__(self, batch: Batch) -> Batch:
        """Logits (N, n_classes, H, W) of a normalised batch (N, C, H, W)."""


class TorchEngine:
    """A torch module in evaluation mode; `autocast` runs it in bfloat16 where that is allowed to be."""

    name = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        device: str | torch.device = "cpu",
        autocast: bool = False,
        channels_last: bool = False,
    ) -> None:
        self.module, self.device, self.autocast, self.channels_last = module, device, autocast, channels_last

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a normalised batch."""
        return self.run(batch).float().cpu().numpy()  # type: ignore[no-any-return]

    def run(self, batch: Batch) -> Any:
        """What the module says of a normalised batch, on the device."""
        import torch

        was_training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(self.device, non_blocking=True)
                if self.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
                kind = torch.device(self.device).type
                with torch.autocast(kind, torch.bfloat16) if self.autocast else contextlib.nullcontext():
                    return self.module(x)
        finally:
            self.module.train(was_training)


class OnnxEngine:
    """ONNX Runtime on the CPU, or on CUDA where the installed build has it."""

    def __init__(self, path: Path, name: str = "onnxruntime", threads: int = 0) -> None:
        import onnxruntime as ort

        self.name = name
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        providers = [p for p in wanted if p in ort.get_available_providers()]
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a normalised batch."""
        return self._session.run(None, {self._input: batch})[0]  # type: ignore[no-any-return]


@functools.cache
def _openvino() -> Any:
    """OpenVINO's core, one for the life of the process.

    The CPU plugin of each core gives the thread that loads it a stack for signal handlers and puts back the former one when it
    goes. Of two, the later one puts back what the earlier one has freed: the next signal that Python handles (Ctrl-C, the end of
    a child) would be a segmentation fault.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine:
    """OpenVINO on the CPU, in float32 or (where the processor has it, about twice as fast) bfloat16."""

    def __init__(self, path: Path, name: str, precision: str, threads: int = 0) -> None:
        self.name = name
        self._compiled = _openvino().compile_model(str(path), "CPU", _settings(precision, threads))

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a normalised batch."""
        return _infer(self._compiled, batch)


class Int8Engine:
    """OpenVINO on the CPU, on a graph in 8-bit integers. Each shape of input is compiled for (about half a second), once while it is
    among the latest `_SHAPES`.

    Compiled for free sizes, as the other engines are, OpenVINO 2026.4 computes quantised U-Nets wrongly: behind the resizing before
    a concatenation, channels are mixed up.
    """

    _SHAPES = 16

    def __init__(self, path: Path, name: str, threads: int = 0) -> None:
        self.name = name
        self._path, self._threads = path, threads
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], Any] = {}
        _openvino().read_model(str(path))  # one that is broken is known now

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a normalised batch."""
        return _infer(self._for(batch.shape), batch)

    def _for(self, shape: tuple[int, ...]) -> Any:
        """The graph compiled for a shape, which is then the latest."""
        with self._lock:
            compiled = self._compiled.pop(shape, None)
            if compiled is None:
                model = _openvino().read_model(str(self._path))
                model.reshape(list(shape))
                compiled = _openvino().compile_model(model, "CPU", _settings("f32", self._threads))
                while len(self._compiled) >= self._SHAPES:
                    self._compiled.pop(next(iter(self._compiled)))
            self._compiled[shape] = compiled
            return compiled


def _settings(precision: str, threads: int) -> dict[str, object]:
    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return settings | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def _infer(compiled: Any, batch: Batch) -> Batch:
    # A request of its own for each call: server threads must not share one.
    result = compiled.create_infer_request().infer([batch], share_inputs=True)
    return np.array(result[0], np.float32)


GRAPH_ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "onnxruntime": lambda path, threads: OnnxEngine(path, "onnxruntime", threads),
    "openvino": lambda path, threads: OpenVinoEngine(path, "openvino", "f32", threads),
    "openvino-bf16": lambda path, threads: OpenVinoEngine(path, "openvino-bf16", "bf16", threads),
}
"""Engines that run an ONNX graph, by the name that segmenter.json pins."""

INT8_ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "openvino-int8": lambda path, threads: Int8Engine(path, "openvino-int8", threads),
}
"""Engines that compute in 8-bit integers, on the graph that is made for that (`segpipe.release.export.int8`). ONNX Runtime would
want another: results of convolutions rounded too, which costs accuracy, and is no faster than OpenVINO in bfloat16."""


def precision_is_native(name: str) -> bool:
    """Whether this processor computes in the numbers that an engine is named after. Where it has no bfloat16, OpenVINO takes float32
    instead, and does not say so."""
    return not name.endswith("-bf16") or "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def graph_engine(name: str, path: Path, threads: int = 0) -> Engine:
    """The engine of this name on an ONNX file; `threads` 0 leaves the choice to the engine."""
    known = GRAPH_ENGINES | INT8_ENGINES
    if name not in known:
        raise ConfigError("no such engine", found=name, expected=" or ".join(known))
    try:
        return known[name](path, threads)
    except ImportError as error:
        raise MissingError(f"engine {name} is not installed here", fix=f"pip install {name.split('-')[0]}") from error
