"""A training that continues from a release (``encoder_weights: NAME@VERSION``): what it takes over in addition to weights.

These are the settings that the candidate leaves open, the normalisation, the voxel size, and the assignment of channels to classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segpipe.config import PARAMS_FILE, Candidate
from segpipe.errors import ConfigError
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.weights.released_weights import fetched_release_folder, parse_release
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.inference.outputs import Outputs


@dataclass(frozen=True)
class WarmStart:
    """A release that a training continues from."""

    source: str
    """NAME@VERSION."""
    spec: SegmenterSpec
    """The released model's specification, as training wrote it."""

    def fill(self, candidate: Candidate) -> Candidate:
        """Return the candidate with the release's settings for all that it leaves open.

        Raises:
            ConfigError: The candidate is of another family.
        """
        if candidate.family != self.spec.family:
            raise ConfigError(
                f"{self.source} is of family {self.spec.family}",
                where=PARAMS_FILE,
                found=f"family: {candidate.family}",
                fix=f"set `family: {self.spec.family}`, or use its encoder alone: encoder_weights: .segpipe/releases/"
                f"{self.source.rpartition('@')[2]}/model/weights.safetensors",
            )
        return Candidate.model_validate(self.spec.options | candidate.model_dump())

    def check_channels(self, fingerprint: Fingerprint, has_encoder: bool) -> None:
        """Raise ConfigError if the release's first layer cannot be adapted to the number of channels of the images."""
        stored, present = self.spec.normalisation.channels, fingerprint.channels
        if present != stored and not (has_encoder and stored == 3):
            raise ConfigError(
                f"{self.source} expects images with {stored} channel(s)",
                where="encoder_weights",
                found=f"images with {present}",
                fix=f"use images with {stored}, or start from other weights (auto, none)",
            )

    def map_channels(self, classes: ClassTable, outputs: Outputs) -> tuple[list[int | None], str]:
        """Assign channels of the release to those of the new network.

        A class continues from the class of the same name. If neither table has the other's name, it continues from the class with
        the same pixel value: a class that was renamed. All other channels of the release are dropped.

        Args:
            classes: the classes of the dataset.
            outputs: the channels of the new network.

        Returns:
            For each channel of the new network the channel of the release, or None for new weights; and that in words.
        """
        names, released = classes.names, self.spec.classes
        unassigned = {c.value: index for index, c in enumerate(released.classes) if c.name not in names}
        channels: list[int | None] = []
        words = [f"{self.source}, with {sum(name in released.names for name in names)} of its {len(released)} classes"]
        for new_class in classes.classes:
            if new_class.name in released.names:
                channels.append(released.names.index(new_class.name))
                continue
            source = unassigned.pop(new_class.value, None)
            channels.append(source)
            if source is None:
                words.append(f"{new_class.name} starts from new weights")
            else:
                words.append(f"{new_class.name} is {released.names[source]}, renamed (it has the same pixel value)")
        words += [f"{released.names[index]} is dropped" for index in unassigned.values()]
        if outputs.distance:
            channels.append(len(released) if self.spec.distance else None)
        return channels, "; ".join(words)


def warm_start_of(options: Mapping[str, Any]) -> WarmStart | None:
    """Return the release that a candidate with these options continues from; None if it starts from other weights.

    Raises:
        MissingError: The released model is not on this machine.
    """
    source = str(options.get("encoder_weights", ""))
    return WarmStart(source, SegmenterSpec.read(fetched_release_folder(source))) if parse_release(source) else None
