"""Readings of the masks of a source, from the pixels of a sample: values, colours, alpha, or shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.readings.reading import Evidence
from segpipe.data.formats.readings.sample import MaskSample, SampledMask
from segpipe.data.formats.readings.value_kinds import KindReading, read_values
from segpipe.data.formats.source import RawItem
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.data.mask_facts import RGB, MaskFacts
from segpipe.samples import MAX_CLASSES

_SAMPLES = 8
_MAX_SAMPLE_BYTES = 1 << 23
_LARGE_SAMPLES = 2
_NEAR_GREY = 24
"""Channels of a grey image that was compressed with loss differ by at most this."""
_MAX_MIDDLE_SHARE = 0.05
STORED_PALETTE = "stored"
"""The value of --palette for the colours that palette images store themselves."""


def sample_items(items: Sequence[RawItem], listing: FolderListing) -> list[RawItem]:
    """Return some images with mask files (not volumes), evenly spread, without large files; two of these if all are large."""
    masked = [item for item in items if item.mask and suffix_of(item.mask) not in VOLUME_SUFFIXES]
    sample = masked[:: max(1, len(masked) // _SAMPLES)]
    sizes = [(listing.size(item.mask), item) for item in sample if item.mask and listing.is_file(item.mask)]
    small = [item for size, item in sizes if size < _MAX_SAMPLE_BYTES]
    return small or [item for _, item in sizes[:_LARGE_SAMPLES]]


def read_mask_kinds(sample: MaskSample) -> list[KindReading]:
    """Return the readings of the masks of a sample, the best supported first. If nothing is known of them: class values."""
    if not sample.masks:
        return [KindReading("classes")]
    for read in (_in_alpha, _in_shares, _in_colours, _in_palettes):
        if readings := read(sample):
            return readings
    return read_values(sample)


def _evidence(text: str, supports: bool = True) -> Evidence:
    return Evidence(text=text, origin="pixels", supports=supports)


def has_labels_in_alpha(facts: MaskFacts) -> bool:
    """Return whether only the alpha channel of a mask varies."""
    constant = len(facts.counts) == 1 and facts.spread == 0 if facts.counts else False
    one_colour = len(facts.colours) == 1
    return facts.alpha is not None and len(facts.alpha) > 1 and (constant or one_colour)


def _in_alpha(sample: MaskSample) -> list[KindReading]:
    in_alpha = [facts for facts in sample.facts if has_labels_in_alpha(facts)]
    if not in_alpha:
        return []
    values = sorted(set().union(*(facts.alpha or () for facts in in_alpha)))
    text = f"in {len(in_alpha)} of {len(sample)} masks the colour is constant and only alpha varies: values {values}"
    return [
        KindReading("alpha", f"values {values}", {}, (_evidence(text),)),
        KindReading("classes", "", {}, (_evidence(text, supports=False),)),
    ]


def _in_shares(sample: MaskSample) -> list[KindReading]:
    shares = [facts.shares for facts in sample.facts if facts.shares]
    if not shares:
        return []
    low, high = min(share[0] for share in shares), max(share[1] for share in shares)
    middle = sum(share[2] for share in shares) / len(shares)
    found = f"floats from {low:g} to {high:g}, {middle:.1%} of the pixels between 0.05 and 0.95"
    in_range = low >= 0 and high <= 1
    clear = in_range and middle <= _MAX_MIDDLE_SHARE
    evidence = [_evidence(found, supports=clear)]
    threshold = 0.5 if in_range else (low + high) / 2
    words = f"2 classes: below {threshold:g}, and from {threshold:g}"
    return [KindReading("binary", words, {"threshold": threshold}, tuple(evidence), 2)]


def _in_colours(sample: MaskSample) -> list[KindReading]:
    coloured = [facts for facts in sample.facts if facts.spread > (_NEAR_GREY if facts.is_lossy else 0)]
    if not coloured:
        return []
    colours: Counter[RGB] = sum((facts.colours for facts in coloured), Counter())
    number = f"{len(colours)} colours" if colours else "many colours"
    text = f"the channels of {len(coloured)} of {len(sample)} masks differ: {number}"
    return [KindReading("colours", f"{number}, of which a palette names the classes", {}, (_evidence(text),))]


def _in_palettes(sample: MaskSample) -> list[KindReading]:
    """Return the readings of palette images in which an index has different colours; none if all agree."""
    indexed = [sampled for sampled in sample.masks if sampled.facts.palette is not None]
    conflict = _conflict(sample.masks) if indexed else None
    if conflict is None:
        return []
    colours = [_colours_of(sampled) for sampled in sample.masks]
    union = set().union(*colours)
    shared = Counter(colour for one in colours for colour in one)
    grey_values = {v for sampled in sample.masks if sampled.facts.palette is None for v in sampled.facts.counts}
    index_values = {v for sampled in indexed for v in sampled.facts.counts}
    by_colour = len(union) <= MAX_CLASSES and all(n > 1 for n in shared.values())
    if grey_values and grey_values <= index_values:
        by_colour = False  # grey files hold the same indices, so the indices are the classes
    text = f"the palettes of the files differ: {conflict}"
    if not by_colour:
        values = read_values(sample)
        return [] if grey_values else [*values, KindReading("colours", "", {"palette": STORED_PALETTE}, ())]
    return [
        KindReading(
            "colours",
            f"{len(union)} classes: colours {', '.join(map(_words, sorted(union)[:8]))}",
            {"palette": STORED_PALETTE},
            (_evidence(text), _evidence(f"the same {len(union)} colours occur in all files")),
        ),
        KindReading("classes", "", {}, (_evidence(text, supports=False),)),
    ]


def _colours_of(sampled: SampledMask) -> set[RGB]:
    palette = sampled.facts.palette
    return {palette.get(v, (v, v, v)) if palette else (v, v, v) for v in sampled.facts.counts}


def _conflict(masks: Sequence[SampledMask]) -> str | None:
    """Return in words where the same index has two colours, or the same colour two indices; None if that is nowhere so."""
    first_colour: dict[int, tuple[RGB, str]] = {}
    first_index: dict[RGB, tuple[int, str]] = {}
    by_kind: dict[bool, int] = defaultdict(int)
    for sampled in masks:
        palette, name = sampled.facts.palette, sampled.mask.name
        by_kind[palette is None] += 1
        for value in sorted(sampled.facts.counts):
            colour = palette.get(value, (value,) * 3) if palette else (value, value, value)
            other_colour, file = first_colour.setdefault(value, (colour, name))
            if other_colour != colour:
                return f"value {value} is {_words(other_colour)} in {file} and {_words(colour)} in {name}"
            other_value, file = first_index.setdefault(colour, (value, name))
            if other_value != value and len(by_kind) > 1:
                return f"{_words(colour)} is value {other_value} in {file} and {value} in {name}"
    return None


def _words(colour: RGB) -> str:
    return " ".join(map(str, colour))
