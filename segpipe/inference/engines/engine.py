"""Engines run a network with torch, ONNX Runtime or OpenVINO, behind one call.

An engine maps a normalised batch to logits. `segpipe.inference.outputs` defines the meaning of their channels.
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
"""Images (N, C, H, W) or volumes (N, C, D, H, W)."""

_ORT_ERROR = 3
"""ONNX Runtime's log level for errors."""


def softmax(scores: npt.NDArray[np.float32], axis: int = 0) -> npt.NDArray[np.float32]:
    """Convert scores to probabilities that sum to 1 along an axis, without overflow.

    Args:
        scores: An array of any shape.
        axis: The axis of the classes.
    """
    exp = np.exp(scores - scores.max(axis, keepdims=True))
    return exp / exp.sum(axis, keepdims=True)


class Engine(Protocol):
    """A loaded network that maps batches to logits.

    It may be called from several threads at the same time.
    """

    name: str
    """Name of the engine, as segmenter.json stores it: "torch", a key of `GRAPH_ENGINES` or `INT8_ENGINES`, or a classical family."""

    def __call__(self, batch: Batch) -> Batch:
        """Run the network.

        Args:
            batch: Normalised images (N, C, H, W), float32, with H and W multiples of the model's stride; or volumes (N, C, D, H, W) that
                have the size of the model's window (`SegmenterSpec.patch3d`).

        Returns:
            Logits (N, channels, H, W) or (N, channels, D, H, W), float32, not bounded. `SegmenterSpec.outputs` defines the
            channels: one per class, then possibly a distance.
        """


class TorchEngine:
    """Runs a torch module in evaluation mode.

    Args:
        module: The network. Its training mode is restored after each call.
        device: The device that the module is on.
        autocast: Compute in bfloat16 where torch's autocast allows it.
        channels_last: Pass images in channels-last memory format.
    """

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
        """Compute the logits of a normalised batch. See `Engine.__call__`."""
        return self.run(batch).float().cpu().numpy()

    def run(self, batch: Batch) -> Any:
        """Return the output of the module for a normalised batch, on the device."""
        import torch

        was_training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(self.device, non_blocking=True)
                if self.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
                device_type = torch.device(self.device).type
                with torch.autocast(device_type, torch.bfloat16) if self.autocast else contextlib.nullcontext():
                    return self.module(x)
        finally:
            self.module.train(was_training)


class OnnxEngine:
    """Runs an ONNX graph with ONNX Runtime, on the CPU or, if the installed build supports it, with CUDA.

    Args:
        path: The ONNX file.
        name: Name of the engine.
        threads: Number of threads; 0 lets ONNX Runtime choose.
    """

    def __init__(self, path: Path, name: str = "onnxruntime", threads: int = 0) -> None:
        import onnxruntime as ort

        self.name, self.threads = name, threads
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ORT_ERROR
        preferred = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        providers = [p for p in preferred if p in ort.get_available_providers()]
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Batch) -> Batch:
        """Compute the logits of a normalised batch. See `Engine.__call__`."""
        return self._session.run(None, {self._input: batch})[0]


@functools.cache
def _openvino() -> Any:
    """Return OpenVINO's core, one for the lifetime of the process.

    The CPU plugin of each core gives the thread that loads it an alternate stack for signal handlers, and restores the former one when
    the plugin is unloaded. With two cores, the later one restores a stack that the earlier one has freed, and the next signal that
    Python handles (Ctrl-C, the end of a child process) crashes the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine:
    """Runs an ONNX graph with OpenVINO on the CPU.

    Args:
        path: The ONNX file.
        name: Name of the engine.
        precision: "f32", or "bf16", which is about twice as fast on processors that support it.
        threads: Number of threads; 0 lets OpenVINO choose.
    """

    def __init__(self, path: Path, name: str, precision: str, threads: int = 0) -> None:
        self.name = name
        self._compiled = _openvino().compile_model(str(path), "CPU", _settings(precision, threads))

    def __call__(self, batch: Batch) -> Batch:
        """Compute the logits of a normalised batch. See `Engine.__call__`."""
        return _infer(self._compiled, batch)


class Int8Engine:
    """Runs a graph quantised to 8-bit integers with OpenVINO on the CPU.

    The graph is compiled for each input shape, which takes about half a second; the graphs of the latest shapes are cached. (OpenVINO
    2026.4 computes wrong results for quantised U-Nets that are compiled for dynamic shapes, as the other engines are: after the
    resizing before a concatenation, channels are mixed up.)

    Args:
        path: The quantised ONNX file.
        name: Name of the engine.
        threads: Number of threads; 0 lets OpenVINO choose.
    """

    _MAX_SHAPES = 16

    def __init__(self, path: Path, name: str, threads: int = 0) -> None:
        self.name = name
        self._path, self._threads = path, threads
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], Any] = {}
        _openvino().read_model(str(path))  # raises now if the file is broken, not at the first call

    def __call__(self, batch: Batch) -> Batch:
        """Compute the logits of a normalised batch. See `Engine.__call__`."""
        return _infer(self._compiled_for(batch.shape), batch)

    def _compiled_for(self, shape: tuple[int, ...]) -> Any:
        """Return the graph compiled for a shape, and mark it as the most recently used."""
        with self._lock:
            compiled = self._compiled.pop(shape, None)
            if compiled is None:
                model = _openvino().read_model(str(self._path))
                model.reshape(list(shape))
                compiled = _openvino().compile_model(model, "CPU", _settings("f32", self._threads))
                while len(self._compiled) >= self._MAX_SHAPES:
                    self._compiled.pop(next(iter(self._compiled)))
            self._compiled[shape] = compiled
            return compiled


def _settings(precision: str, threads: int) -> dict[str, object]:
    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return settings | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def _infer(compiled: Any, batch: Batch) -> Batch:
    # Each call creates an infer request, because the threads of a server must not share one.
    result = compiled.create_infer_request().infer([batch], share_inputs=True)
    return np.array(result[0], np.float32)


GRAPH_ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "onnxruntime": lambda path, threads: OnnxEngine(path, "onnxruntime", threads),
    "openvino": lambda path, threads: OpenVinoEngine(path, "openvino", "f32", threads),
    "openvino-bf16": lambda path, threads: OpenVinoEngine(path, "openvino-bf16", "bf16", threads),
}
"""Engines that run an ONNX graph, by the name that segmenter.json stores."""

INT8_ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "openvino-int8": lambda path, threads: Int8Engine(path, "openvino-int8", threads),
}
"""Engines that run a graph quantised to 8-bit integers (`segpipe.release.export.int8`).

ONNX Runtime is not among them. It would need another graph, in which the results of convolutions are rounded too: this costs accuracy,
and is no faster than OpenVINO in bfloat16."""


def precision_is_native(name: str) -> bool:
    """Return whether this processor supports the precision that an engine is named after.

    Without support for bfloat16, OpenVINO silently computes in float32.

    Args:
        name: Name of an engine.
    """
    return not name.endswith("-bf16") or "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def graph_engine(name: str, path: Path, threads: int = 0) -> Engine:
    """Load an ONNX file with an engine.

    Args:
        name: A key of `GRAPH_ENGINES` or `INT8_ENGINES`.
        path: The ONNX file.
        threads: Number of threads; 0 lets the engine choose.

    Raises:
        ConfigError: There is no such engine.
        MissingError: The package of the engine is not installed.
    """
    engines = GRAPH_ENGINES | INT8_ENGINES
    if name not in engines:
        raise ConfigError("no such engine", found=name, expected=" or ".join(engines))
    try:
        return engines[name](path, threads)
    except ImportError as error:
        raise MissingError(f"engine {name} is not installed", fix=f"pip install {name.split('-')[0]}") from error
