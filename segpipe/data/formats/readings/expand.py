"""From a layout to its readings: the kinds of its masks, and their orientation, as a sample of pixels and the user's options allow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE
from segpipe.data.formats.format import Format
from segpipe.data.formats.masks.palette_files import read_palette
from segpipe.data.formats.pairs import is_yolo_file
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.mask_kinds import read_mask_kinds
from segpipe.data.formats.readings.orientation import Orientation, read_orientations
from segpipe.data.formats.readings.reading import Evidence, Reading, Variant
from segpipe.data.formats.readings.sample import MaskSample
from segpipe.data.formats.readings.value_kinds import KindReading
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.errors import SegpipeError

_LAYOUTS_BY_KIND = {"instances": "label-maps", "colours": "colour-masks"}
"""Layouts that are `folder` with a known kind of mask."""


@dataclass(frozen=True)
class Hints:
    """The user's words about the classes.

    names: class names, plain or each as ``name=value``; None if there are none.
    ignore: values that are ignored.
    """

    names: list[str] | None = None
    ignore: tuple[int, ...] = ()


def expand_layout(probe: SourceProbe, layout: Format, reason: str, options: ReadOptions, hints: Hints) -> list[Reading]:
    """Return the readings of a source with a known layout, the best supported first.

    Args:
        probe: the source.
        layout: its layout.
        reason: why it has this layout, in words.
        options: the user's options; a kind of mask that follows from them is not judged.
        hints: what the user has said about the classes.
    """
    names = Evidence(text=reason, origin="names")
    variants = layout.variants(probe, options)
    if not layout.has_mask_files:
        return [
            Reading(layout=layout.name, pairing=reason, options=dict(v.options), evidence=(names, *v.evidence))
            for v in variants
        ]
    return [
        reading
        for variant in variants
        for reading in _expand_variant(
            probe, layout, variant.evidence or (names,), options.model_copy(update=variant.options), variant, hints
        )
    ]


def _expand_variant(
    probe: SourceProbe,
    layout: Format,
    names: tuple[Evidence, ...],
    options: ReadOptions,
    variant: Variant,
    hints: Hints,
) -> list[Reading]:
    """Return the readings of a source with a known layout and known mask files."""
    try:
        result = layout.read(probe, options)
    except SegpipeError:  # reading it for the import raises the error again
        result = ReadResult([])
    items = result.items
    kinds = _kinds(probe, layout, result, options, hints)
    ways: list[Orientation] = []
    if options.exif is None and not options.overlapping:
        ways = read_orientations(probe.sample_items(items), probe.mask_reader(options.limits))
    readings = []
    for kind in kinds:
        for way in ways or [Orientation("", ())]:
            chosen = variant.options | ({"exif": way.exif} if way.exif == "ignore" or len(ways) > 1 else {})
            readings.append(_reading(layout, kind, (*names, *kind.evidence, *way.evidence), chosen, options))
    return readings


def _reading(
    layout: Format,
    kind: KindReading,
    evidence: tuple[Evidence, ...],
    orientation: dict[str, str],
    options: ReadOptions,
) -> Reading:
    given = set(options.names_set())
    extra = {name: value for name, value in kind.options.items() if name not in given} | orientation
    name, shown_kind = layout.name, None if layout.kind == kind.kind else kind.kind
    if layout.name == "folder" and kind.kind in _LAYOUTS_BY_KIND and options.kind is None and not options.overlapping:
        name, shown_kind = _LAYOUTS_BY_KIND[kind.kind], None
    return Reading(
        layout=name,
        kind=kind.kind,
        is_kind_implied=shown_kind is None,
        pairing=evidence[0].text,
        classes=kind.classes,
        options=dict(extra),
        evidence=evidence,
    )


def _kinds(
    probe: SourceProbe, layout: Format, result: ReadResult, options: ReadOptions, hints: Hints
) -> list[KindReading]:
    """Return the kinds that masks may have: the one that the user's options imply, otherwise those that the sample allows."""
    if layout.kind is not None:
        return [KindReading(layout.kind)]
    if options.overlapping:
        return [KindReading("classes")]
    if options.threshold is not None:
        return [KindReading("binary")]
    if options.kind is None and any((options.palette, options.tolerance, options.unknown_colours)):
        return [KindReading("colours")]
    if options.kind is None and _has_class_table(probe):
        return [KindReading("classes", classes=f"as {CLASSES_FILE} says")]
    if options.kind is None and result.classes is not None:
        return [KindReading("classes", classes=f"as {result.classes_from}")]
    sample = probe.sample(result.items, hints.ignore, options.limits)
    if options.kind is None and len(result.palettes) == 1 and _names_greys(result.palettes[0], sample):
        return [KindReading("colours", classes=f"the grey values that {result.palettes[0].name} names")]
    judged = read_mask_kinds(sample)
    if options.kind is not None:
        same = [kind for kind in judged if kind.kind == options.kind and "ignore" not in kind.options]
        return [KindReading(options.kind, *_first_facts(same))]
    return _fitting(judged, hints)


def _names_greys(file: Path, sample: MaskSample) -> bool:
    """Return whether a palette has only grey colours, and all values of the masks of a sample are among them."""
    try:
        colours = read_palette(str(file)).colors
    except SegpipeError:  # a table of something else, which masks of values do not need
        return False
    is_grey = bool((colours == colours[:, :1]).all())
    values = {*sample.pixels_by_value()}
    return is_grey and bool(values) and values <= {int(colour[0]) for colour in colours}


def _has_class_table(probe: SourceProbe) -> bool:
    path = probe.source / CLASSES_FILE
    return path.exists() and not is_yolo_file(path)


def _first_facts(kinds: list[KindReading]) -> tuple[str, dict[str, str | int | float | bool]]:
    return (kinds[0].classes, kinds[0].options) if kinds else ("", {})


def _fitting(kinds: list[KindReading], hints: Hints) -> list[KindReading]:
    """Return the kinds that fit the names which the user has given; all of them if none fits. A single one is not doubted."""
    if hints.names is None:
        return kinds
    number = len(hints.names)
    has_values = any("=" in name for name in hints.names)

    def fits(kind: KindReading) -> bool:
        if kind.kind == "classes" and has_values:
            return True
        return kind.n_classes is None or number == kind.n_classes or (kind.kind == "instances" and number == 1)

    fitting = [kind for kind in kinds if fits(kind)] or kinds
    clear = [kind for kind in fitting if not kind.is_doubtful]
    if len(clear) != 1 and len(fitting) == 1:
        kept = tuple(evidence for evidence in fitting[0].evidence if evidence.supports)
        return [KindReading(fitting[0].kind, fitting[0].classes, fitting[0].options, kept, fitting[0].n_classes)]
    return fitting
