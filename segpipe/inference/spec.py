"""`SegmenterSpec`, the content of segmenter.json: everything that defines a model except its weights."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import MissingError
from segpipe.files import write_text
from segpipe.inference.cleaning import Cleaning
from segpipe.inference.input_contract.spec import InputSpec
from segpipe.inference.outputs import Outputs, OverlappingOutputs
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.tta import TTA
from segpipe.json_models import read_model
from segpipe.samples import ClassTable

SPEC_FILE = "segmenter.json"
GRAPH_FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"
"""The same graph quantised to 8-bit integers; a bundle has it if its engine is an int8 one."""
WEIGHTS_FILE = "weights.safetensors"
"""The weights, for the engine torch and for classical models."""
TORCH = "torch"
"""Name of the engine that needs weights instead of a graph."""


class SegmenterSpec(BaseModel):
    """Everything that defines a model except its weights; the content of segmenter.json.

    It is frozen. Copies with other values are made with `model_copy(update=...)`. Unknown keys are rejected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    """Version of the file's format."""
    candidate: str
    """Name of the candidate in params.yaml."""
    family: str
    """Name of the model's family."""
    options: dict[str, Any] = {}
    """The family's settings (encoder and so on), from which the network can be built again."""
    task: Literal["semantic", "instance"] = "semantic"
    """semantic: the network predicts a class for each pixel; instance: it is a detector."""
    classes: ClassTable
    """Names, mask values and colours of the classes; a class id is an index of this table."""
    input: InputSpec | None = Field(None, exclude_if=operator.not_)
    """The images that the model was trained on; None in the bundles of older versions, which take every image as it is."""
    normalisation: Normalisation
    """Conversion of stored pixels to the network's input."""
    stride: int = Field(32, ge=1)
    """Height and width of the network's input must be multiples of this."""
    tile: int = Field(1024, ge=32)
    """Edge length of a tile in pixels; images with more than `tile` x `tile` pixels are predicted in tiles."""
    overlap: int = Field(256, ge=0)
    """Minimum overlap of neighbouring tiles in pixels."""
    dims: Literal[2, 3] = 2
    """2 for images, 3 for volumes."""
    patch3d: tuple[int, int, int] | None = None
    """For volumes: depth, height and width of the network's input window, in voxels."""
    spacing: tuple[float, float, float] | None = None
    """For volumes: the voxel size in mm (depth, height, width) to which volumes are resampled for the network; None: no resampling."""
    temperature: float = Field(1.0, gt=0)
    """Logits are divided by this before they become probabilities, which calibrates them. It does not change class ids."""
    distance: bool = Field(False, exclude_if=operator.not_)
    """True if the network has one more channel than classes: the distance to the border of an instance (`Outputs.distance`)."""
    postprocess: Postprocess | None = None
    """Settings by which instances are found; None for a semantic model that yields none, and for the default of a detector."""
    members: int = Field(1, ge=1)
    """Number of networks whose probabilities are averaged (`segpipe.inference.engines.ensemble`)."""
    cleaning: Cleaning | None = None
    """Settings by which class ids are cleaned up, if that has improved the validation scores."""
    tta: TTA = "none"
    """Test-time augmentation. A detector always sees the image once, as it is."""
    engine: str = TORCH
    """The engine that was chosen when the bundle was exported; all copies use it, so that they return the same mask."""
    lineage: dict[str, str] = {}
    """Hashes of the data and of the plan, and the version of segpipe."""

    @property
    def needs_training_values(self) -> bool:
        """True if the values of an image must be those of the training images: their type is known, and the window is not its own."""
        return self.input is not None and not self.normalisation.per_image

    @property
    def outputs(self) -> Outputs:
        """The meaning of the network's output channels."""
        return (OverlappingOutputs if self.classes.overlapping else Outputs)(len(self.classes), self.distance)

    def write(self, folder: Path) -> None:
        """Write segmenter.json.

        Args:
            folder: The folder of the model, which must exist.
        """
        write_text(folder / SPEC_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> SegmenterSpec:
        """Read and validate segmenter.json.

        Args:
            folder: The folder of a model: models/CANDIDATE or a bundle.

        Raises:
            MissingError: The folder has no segmenter.json.
            SegpipeError: The file is not valid JSON, or a value is invalid.
        """
        path = folder / SPEC_FILE
        if not path.exists():
            raise MissingError(
                "no model in this folder",
                where=folder,
                fix="give a folder that holds segmenter.json, for example bundle/",
            )
        return read_model(path, cls)
