"""segmenter.json: what a model is beside its weights."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import MissingError
from segpipe.files import write_text
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.outputs import Outputs, OverlappingOutputs
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.tta import TTA
from segpipe.json_models import read_model
from segpipe.samples import ClassTable

SPEC_FILE = "segmenter.json"
GRAPH_FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"
"""The same graph in 8-bit integers; it is there where that serves."""
WEIGHTS_FILE = "weights.safetensors"
"""What stands for the graph where torch is the engine."""
TORCH = "torch"


class SegmenterSpec(BaseModel):
    """segmenter.json: everything beside the weights that turns an image into class ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    candidate: str
    family: str
    options: dict[str, Any] = {}
    """The family's own settings (encoder and so on), enough to build the network again."""
    task: Literal["semantic", "instance"] = "semantic"
    """semantic: the network gives each pixel a class; instance: it finds objects."""
    classes: ClassTable
    normalisation: Normalisation
    stride: int = Field(32, ge=1)
    """Height and width of what the network sees are multiples of this."""
    tile: int = Field(1024, ge=32)
    """Images with more than `tile` x `tile` pixels go through in tiles of this edge."""
    overlap: int = Field(256, ge=0)
    dims: Literal[2, 3] = 2
    """2 for images, 3 for volumes."""
    patch3d: tuple[int, int, int] | None = None
    """Of a model for volumes: the window (D, H, W) that the network sees."""
    spacing: tuple[float, float, float] | None = None
    """Of a model for volumes: the voxel size in mm, by axis (D, H, W), at which it works; None takes voxels as they come."""
    temperature: float = Field(1.0, gt=0)
    """What logits are divided by before they become probabilities, so that these are kept; class ids are the same at any."""
    distance: bool = Field(False, exclude_if=operator.not_)
    """Whether the network gives a channel more than there are classes: how deep in its object a pixel lies."""
    postprocess: Postprocess | None = None
    """How objects are found in what the network says; None where none are asked for."""
    members: int = Field(1, ge=1)
    """Networks that answer together; `segpipe.inference.engines.ensemble` makes one of them."""
    cleaning: Cleaning | None = None
    """What is mended in the class ids, where that was shown to help on the validation split."""
    tta: TTA = "none"
    """How often, turned in which ways, an image goes through the network; none: once. Objects of a detector: always once."""
    engine: str = TORCH
    """The engine that served best where the bundle was made; pinned, so that every copy answers with the same mask."""
    lineage: dict[str, str] = {}
    """Hashes of the data and the plan, the version of segpipe."""

    @property
    def outputs(self) -> Outputs:
        """The channels of the network."""
        return (OverlappingOutputs if self.classes.overlapping else Outputs)(len(self.classes), self.distance)

    def write(self, folder: Path) -> None:
        """Write segmenter.json into a folder."""
        write_text(folder / SPEC_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SegmenterSpec:
        """Read and check segmenter.json from a folder."""
        path = folder / SPEC_FILE
        if not path.exists():
            raise MissingError(
                "no model here", where=folder, fix="give a folder that holds segmenter.json, such as bundle/"
            )
        return read_model(path, cls)
