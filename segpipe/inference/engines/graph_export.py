"""Write a network as an ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import TorchEngine

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter

OPSET = 17


def export_graph(trained: Segmenter, path: Path) -> None:
    """Write a network as an ONNX graph.

    Batch size, height and width of the input are free. The graph of a network for volumes has a free batch size and the size of
    the network's window.

    Args:
        trained: a network that runs on torch.
        path: the file to write.

    Raises:
        ConfigError: the model is not a network, or it has operations that ONNX cannot express.
    """
    import torch

    from segpipe.ops.exportable_pooling import exportable_pooling

    engine, spec = trained.engine, trained.spec
    if not isinstance(engine, TorchEngine):
        raise ConfigError(
            "the winner is not a network and has no ONNX graph",
            where=spec.candidate,
            found=f"family {spec.family}",
            fix="add a network to `candidates:` in params.yaml (segpipe families lists them)",
        )
    module = engine.module.eval().float().cpu()
    sizes = spec.patch3d or (2 * spec.stride, 2 * spec.stride)
    free_axes = {0: "n"} if spec.patch3d else {0: "n", 2: "h", 3: "w"}
    example = torch.zeros(1, spec.normalisation.channels, *sizes)
    with warnings.catch_warnings(), torch.no_grad(), exportable_pooling():
        warnings.simplefilter("ignore")  # the tracer warns about shape checks that do not matter for free sizes
        try:
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=dict.fromkeys(("image", "logits"), free_axes),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ConfigError(
                f"the network cannot be exported to ONNX: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}",
                where=spec.candidate,
                found=f"family {spec.family}",
                fix="use other layers, or remove the candidate from params.yaml",
            ) from error
