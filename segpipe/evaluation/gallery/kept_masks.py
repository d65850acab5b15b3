"""The masks of a split that was scored, kept in memory so that the gallery need not predict them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.samples import Prediction, Sample

MAX_BYTES = 256 << 20
"""If the masks of a split need more memory, the rest of them is not kept."""


@dataclass(frozen=True)
class KeptMask:
    """A predicted mask.

    Attributes:
        class_ids: (H, W) or (D, H, W), labels.
        instance_ids: of the same shape; None if the model or the dataset has no instances.
    """

    class_ids: npt.NDArray[np.uint8]
    instance_ids: np.ndarray | None


class KeptMasks:
    """Masks by the key of the image, up to `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._masks: dict[str, KeptMask] = {}
        self._free = max_bytes

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Keep the mask of an image if there is room for it.

        A mask without instances of an image that has instances is not kept: they may not have been requested.

        Args:
            sample: the image.
            prediction: the prediction for it.
        """
        instance_ids = None if prediction.instances is None else prediction.instances.ids
        size = prediction.class_ids.nbytes + (0 if instance_ids is None else instance_ids.nbytes)
        if size > self._free or (sample.instances is not None and instance_ids is None):
            return
        self._free -= size
        self._masks[sample.key] = KeptMask(prediction.class_ids, instance_ids)

    def get(self, key: str) -> KeptMask | None:
        """Return the mask of an image; None if it was not kept."""
        return self._masks.get(key)
