"""The reference for drift: the numbers of the images that the model in production was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.errors import DataError
from segpipe.files import read_json, write_text
from segpipe.json_models import validation_error

REFERENCE_FILE = "reference.json"


class Reference(BaseModel):
    """The numbers of a dataset's images, by quantity: {"mean of channel 1": [one per image], ...}."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    images: int
    """Number of images in the dataset; the lists may hold fewer."""
    values: dict[str, list[float]]

    @classmethod
    def from_columns(cls, dtype: str, images: int, columns: Mapping[str, npt.NDArray[np.float64]]) -> Reference:
        """Make a reference from the quantities of images.

        Args:
            dtype: the dtype of the images, such as "uint8".
            images: the number of images in the dataset.
            columns: one array of numbers per quantity, such as `segpipe.drift.image_statistics.quantity_columns` returns; all have the
                same length.

        Returns:
            The reference, with its numbers rounded to six significant digits.
        """
        values = {name: [float(f"{value:.6g}") for value in column] for name, column in columns.items()}
        return cls(dtype=dtype, images=images, values=values)

    @classmethod
    def read(cls, path: Path) -> Reference | None:
        """Read a reference.

        Args:
            path: the file; a workspace has it as reference.json.

        Returns:
            The reference. None if there is no file, or if it holds `{}`: then no model is in production.

        Raises:
            DataError: the file is not JSON, or not a reference.
        """
        content = read_json(path) if path.exists() else {}
        try:
            return cls.model_validate(content) if content else None
        except ValidationError as error:
            first = validation_error(error, path, cls)
            raise DataError(
                f"is not a valid reference for drift: {first.what}",
                where=path,
                found=first.found,
                expected=first.expected,
                fix="write {} into it; the next release fills it again",
            ) from error

    def write(self, path: Path) -> None:
        """Write the reference as JSON, atomically."""
        write_text(path, self.model_dump_json() + "\n")
