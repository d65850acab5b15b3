"""The sample of masks by which a source is judged, and facts about all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from segpipe.data.formats.readings.appearance import Region, chance_of_meaning
from segpipe.data.formats.source import RawItem
from segpipe.data.images import read_image, read_mask
from segpipe.data.mask_content import MaskReader
from segpipe.data.mask_facts import MaskFacts
from segpipe.errors import DataError

_MAX_IMAGES_COMPARED = 12
_MAX_VALUES_COMPARED = 64


def _without(facts: MaskFacts, ignored: Sequence[int]) -> MaskFacts:
    """Return facts without those about ignored values."""
    if not any(value in facts.counts for value in ignored):
        return facts
    counts = Counter({value: n for value, n in facts.counts.items() if value not in ignored})
    shapes = {value: shape for value, shape in facts.shapes.items() if value not in ignored}
    return replace(facts, counts=counts, shapes=shapes)


def _of_equal_length(regions: list[Region], n_last: int) -> list[Region]:
    """Return regions with equally many features: where some images are grey and others in colour, the mean of their channels counts.

    Args:
        regions: the regions; the first features of each are the channels of its colour.
        n_last: the number of features after those of the colour.
    """
    if len({len(region.features) for region in regions}) <= 1:
        return regions
    n_colours = [len(region.features) - n_last for region in regions]
    return [
        replace(region, features=(sum(region.features[:n]) / n, *region.features[n:]))
        for region, n in zip(regions, n_colours, strict=True)
    ]


@dataclass(frozen=True)
class SampledMask:
    """One mask of the sample, with its image."""

    mask: Path
    image: Path
    facts: MaskFacts


class MaskSample:
    """Some masks of a source, of which every fact is read from disk once.

    Args:
        items: the items whose masks are looked at.
        reader: decodes the masks.
        ignored: values that the user ignores, and which say nothing about the others.
    """

    def __init__(self, items: Sequence[RawItem], reader: MaskReader, ignored: Sequence[int] = ()) -> None:
        self.limits = reader.limits
        self.masks: list[SampledMask] = []
        for item in items:
            facts = reader.read(item.mask, with_facts=True).facts if item.mask else None
            if item.mask and facts is not None:
                self.masks.append(SampledMask(item.mask, item.image, _without(facts, ignored)))

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def facts(self) -> list[MaskFacts]:
        """The facts of each mask."""
        return [sampled.facts for sampled in self.masks]

    def pixels_by_value(self) -> Counter[int]:
        """Return the pixels of each value in all masks together."""
        return sum((facts.counts for facts in self.facts), Counter())

    def instances_by_mask(self) -> list[list[int]]:
        """Return the values other than 0 of each mask that has any."""
        found = [sorted(value for value in facts.counts if value > 0) for facts in self.facts]
        return [values for values in found if values]

    def single_share(self) -> float:
        """Return the share of pairs of a mask and a value (not 0) in which the value is one connected component."""
        components = [shape.components for facts in self.facts for shape in facts.shapes.values()]
        return sum(n == 1 for n in components) / len(components) if components else 0.0

    def most_components(self) -> tuple[int, int]:
        """Return the value with the most connected components in one mask, and their number; (0, 0) without any."""
        found = [(shape.components, value) for facts in self.facts for value, shape in facts.shapes.items()]
        components, value = max(found, default=(0, 0))
        return value, components

    def thin_share(self, value: int) -> float:
        """Return the share of the masks with this value in which its pixels form lines."""
        shapes = [facts.shapes[value] for facts in self.facts if value in facts.shapes]
        return sum(shape.is_thin for shape in shapes) / len(shapes) if shapes else 0.0

    def median_values(self) -> float:
        """Return the median number of values other than 0, over the masks that have any."""
        return float(median(len(values) for values in self.instances_by_mask() or [[]]))

    def chance_of_meaning(self, with_position: bool) -> float:
        """Return the p-value of the test whether a value means the same in all images; see `chance_of_meaning`.

        Args:
            with_position: whether position (from left to right) and area count, besides the colour under the regions.
        """
        regions: list[Region] = []
        for number, sampled in enumerate(self.masks[:_MAX_IMAGES_COMPARED]):
            regions += self._regions(number, sampled, with_position)
        return chance_of_meaning(_of_equal_length(regions, 2 if with_position else 0))

    def _regions(self, number: int, sampled: SampledMask, with_position: bool) -> list[Region]:
        try:
            image, mask = read_image(sampled.image, self.limits), read_mask(sampled.mask, self.limits)
        except DataError:  # the import reports it
            return []
        if image.ndim != 3 or image.shape[:2] != mask.shape:
            return []
        regions = []
        for value in sorted(sampled.facts.shapes)[:_MAX_VALUES_COMPARED]:
            shape = sampled.facts.shapes[value]
            pixels = image[mask == value]
            if len(pixels):
                features = tuple(np.median(pixels, axis=0)[:3].tolist())
                position = ((shape.box[1] + shape.box[3]) / 2, float(np.sqrt(shape.area))) if with_position else ()
                regions.append(Region(number, value, features + position))
        return regions
