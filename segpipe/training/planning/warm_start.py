"""What a training takes over from a release (``encoder_weights: NAME@VERSION``) beside its weights: settings that the candidate
leaves open, the normalisation, the size of voxels, and which channel of the network stands for which class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segpipe.config import PARAMS_FILE, Candidate
from segpipe.errors import ConfigError
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.weights.warm_start import parse_release, release_folder
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.inference.outputs import Outputs


@dataclass(frozen=True)
class WarmStart:
    """A release that a training goes on from."""

    source: str
    """NAME@VERSION."""
    spec: SegmenterSpec
    """Its model, as training left it."""

    def fill(self, candidate: Candidate) -> Candidate:
        """The candidate with the release's settings where it has none of its own. Raises ConfigError for another family."""
        if candidate.family != self.spec.family:
            raise ConfigError(
                f"{self.source} is a {self.spec.family}",
                where=PARAMS_FILE,
                found=f"family: {candidate.family}",
                fix=f"set `family: {self.spec.family}`, or take its encoder alone: encoder_weights: .segpipe/releases/"
                f"{self.source.rpartition('@')[2]}/model/weights.safetensors",
            )
        return Candidate.model_validate(self.spec.options | candidate.model_dump())

    def check(self, fingerprint: Fingerprint, over_encoder: bool) -> None:
        """Raise ConfigError where the images have channels that the release's first layer can't be adapted to."""
        stored, found = self.spec.normalisation.channels, fingerprint.channels
        if found != stored and not (over_encoder and stored == 3):
            raise ConfigError(
                f"{self.source} looks at {stored} channel(s)",
                where="encoder_weights",
                found=f"images with {found}",
                fix=f"give images with {stored}, or start from other weights (auto, none)",
            )

    def channels(self, classes: ClassTable, outputs: Outputs) -> tuple[list[int | None], str]:
        """Of each channel of the new network, which one of the release it starts as (None: anew), and that in words.

        A class is the one of the same name there or, where neither table has the other's name, the one of the same pixel value:
        a class that was renamed. What the release knows beside these is dropped.
        """
        names, theirs = classes.names, self.spec.classes
        left = {c.value: place for place, c in enumerate(theirs.classes) if c.name not in names}
        found: list[int | None] = []
        words = [f"{self.source}, with {sum(name in theirs.names for name in names)} of its {len(theirs)} classes"]
        for own in classes.classes:
            found.append(theirs.names.index(own.name) if own.name in theirs.names else left.pop(own.value, None))
            if found[-1] is None:
                words.append(f"{own.name} starts anew")
            elif own.name not in theirs.names:
                words.append(f"{own.name} is {theirs.names[found[-1]]}, renamed (it has the same pixel value)")
        words += [f"{theirs.names[place]} is dropped" for place in left.values()]
        if outputs.distance:
            found.append(len(theirs) if self.spec.distance else None)
        return found, "; ".join(words)


def warm_start_of(options: Mapping[str, Any]) -> WarmStart | None:
    """The release that a candidate of these settings goes on from; None where it starts otherwise. MissingError where its model is
    not here."""
    source = str(options.get("encoder_weights", ""))
    return WarmStart(source, SegmenterSpec.read(release_folder(source))) if parse_release(source) else None
