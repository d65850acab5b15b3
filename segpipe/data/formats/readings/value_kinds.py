"""Readings of masks of whole numbers: class values, instance ids, two classes with lossy edges, or a value for ignored pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from segpipe.data.formats.readings.reading import Evidence
from segpipe.data.formats.readings.sample import MaskSample
from segpipe.data.formats.source import MaskKind
from segpipe.words import listed

_NEAR_END = 40
"""Values at most this far from the two main values belong to their clusters."""
_MIN_DISTANCE = 64
"""The smallest distance of the two main values of masks with lossy edges."""
_MIN_IN_MAIN_VALUES = 0.85
_MIN_NEAR_ENDS = 0.9
_WINDOW, _MAX_IN_WINDOW, _MIN_THIRD_SHARE = 8, 0.4, 0.2
"""A third cluster holds more than these shares of the values between the two main clusters, and of all values but the main ones."""
_MIN_LOSSY_VALUES = 4
_VOID_VALUES = (255, 65535)
_MIN_THIN_SHARE = 0.9
_SHARE_OF_MASKS = 0.95
_MANY_INSTANCES = 32
"""Masks with the values 0 .. k, where k differs between masks and exceeds this number, or 16-bit masks with more values than this."""
_MEANINGFUL, _MEANINGLESS = 0.01, 0.05
_MIN_MASKS_COMPARED = 6
_MAX_VALUES_SHOWN = 8


@dataclass(frozen=True)
class KindReading:
    """One meaning of the masks of a source.

    kind: what their pixels stand for.
    classes: the classes, in words.
    options: the options of the import that belong to it.
    evidence: for and against it.
    n_classes: the number of classes; None if it is not known.
    """

    kind: MaskKind
    classes: str = ""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    n_classes: int | None = None

    @property
    def is_doubtful(self) -> bool:
        """True if there is evidence against it."""
        return any(not evidence.supports for evidence in self.evidence)


def read_values(sample: MaskSample) -> list[KindReading]:
    """Return the readings of masks whose pixels are whole numbers in one channel."""
    pixels = sample.pixels_by_value()
    if lossy := _lossy_binary(sample, pixels):
        return lossy
    if two_codes := _two_codes(sample, pixels):
        return two_codes
    if void := _void(sample, pixels):
        return void
    return _classes_or_instances(sample, pixels)


def _for(text: str) -> Evidence:
    return Evidence(text=text, origin="pixels")


def _against(text: str) -> Evidence:
    return Evidence(text=text, origin="pixels", supports=False)


def _classes(pixels: Counter[int], *evidence: Evidence, ignored: int | None = None) -> KindReading:
    """Return the reading in which each of these values is a class."""
    words = f"{len(pixels)} classes: values {listed(sorted(pixels), _MAX_VALUES_SHOWN)}"
    words += "" if ignored is None else f"; {ignored} is ignored"
    return KindReading("classes", words, {} if ignored is None else {"ignore": ignored}, evidence, len(pixels))


def _binary(threshold: int, *evidence: Evidence) -> KindReading:
    """Return the reading in which a threshold divides two classes."""
    words = f"2 classes: below {threshold}, and from {threshold}"
    return KindReading("binary", words, {"threshold": threshold}, evidence, 2)


def _instances(*evidence: Evidence) -> KindReading:
    """Return the reading in which each value is an instance."""
    return KindReading("instances", "2 classes: background, and all instances", {}, evidence, 2)


def _lossy_binary(sample: MaskSample, pixels: Counter[int]) -> list[KindReading]:
    """Return the readings of masks whose values form clusters around two values; none if they do not."""
    is_lossy = any(facts.is_lossy for facts in sample.facts)
    if len(pixels) < (3 if is_lossy else 2 + _MIN_LOSSY_VALUES):
        return []
    low, high = sorted(value for value, _ in pixels.most_common(2))
    others = {value: n for value, n in pixels.items() if value not in (low, high)}
    if not is_lossy and max(others) < (low + high) / 2:  # soft edges would be on both sides: these are rare classes
        return []
    near = sum(n for value, n in others.items() if value <= low + _NEAR_END or value >= high - _NEAR_END)
    in_main = (pixels[low] + pixels[high]) / pixels.total()
    is_binary = (
        high - low >= _MIN_DISTANCE
        and low <= _NEAR_END
        and high >= max(pixels) - _NEAR_END
        and in_main >= _MIN_IN_MAIN_VALUES
        and not _has_third_cluster(others, low, high)
        and (_shares_of_edges(sample, low, high) or near >= _MIN_NEAR_ENDS * sum(others.values()))
    )
    files = "JPEG files, which change values" if is_lossy else "edges that were smoothed or compressed with loss"
    doubt = _against(f"{len(pixels)} values, as in {files}")
    classes = _classes(pixels, doubt)
    threshold = (low + high + 1) // 2
    if is_binary:
        support = _for(
            f"two clusters: {in_main:.1%} of the pixels are {low} or {high}, the other {len(others)} values lie at edges"
        )
        return [_binary(threshold, support), classes]
    if not is_lossy:
        return []
    doubt = _against(f"the values do not form two clusters: {in_main:.1%} of the pixels are {low} or {high}")
    return [_binary(threshold, doubt), classes]


def _has_third_cluster(others: dict[int, int], low: int, high: int) -> bool:
    """Return whether the values between the two main clusters form a cluster of their own, as a third level does."""
    middle = {value: n for value, n in others.items() if low + _NEAR_END < value < high - _NEAR_END}
    total = sum(middle.values())
    windows = [sum(n for v, n in middle.items() if abs(v - value) <= _WINDOW) for value in middle]
    return total > 0 and max(windows) > _MAX_IN_WINDOW * total and total > _MIN_THIRD_SHARE * sum(others.values())


def _shares_of_edges(sample: MaskSample, low: int, high: int) -> bool:
    """Return whether nearly all other values form lines: the soft edges of the two main ones."""
    shapes = [s for facts in sample.facts for value, s in facts.shapes.items() if value not in (low, high)]
    area = sum(shape.area for shape in shapes)
    has_both = sum(low in facts.counts and high in facts.counts for facts in sample.facts)
    scattered = sum(shape.area for shape in shapes if shape.is_thin and shape.components > 1)
    return bool(shapes) and scattered >= _MIN_NEAR_ENDS * area and 2 * has_both > len(sample)


def _two_codes(sample: MaskSample, pixels: Counter[int]) -> list[KindReading]:
    """Return the readings of masks of which some store the foreground as 1 and others as 255; none for other masks."""
    if set(pixels) != {0, 1, 255} or any({1, 255} <= set(facts.counts) for facts in sample.facts):
        return []
    support = _for("the values 1 and 255 never occur in the same mask: both may be the foreground")
    other = _for("three values, although 1 and 255 never occur in the same mask")
    return [
        _binary(1, support),
        _classes(pixels, other),
    ]


def _void(sample: MaskSample, pixels: Counter[int]) -> list[KindReading]:
    """Return the readings of masks with class values 0 .. k and 255 (or 65535) beside them; none for other masks."""
    void = max(pixels)
    others = sorted(value for value in pixels if value != void)
    if void not in _VOID_VALUES or len(others) < 2 or others[-1] >= void - 1 or others != list(range(len(others))):
        return []
    kept = Counter({value: pixels[value] for value in others})
    thin = sample.thin_share(void)
    text = f"{void} stands apart from the values 0 to {others[-1]}, as marks of ignored pixels do"
    if thin >= _MIN_THIN_SHARE:
        border = f"{void} occurs only as lines: it looks like a void border (--ignore {void})"
        return [
            _classes(kept, _for(border), _for(text), ignored=void),
            _classes(pixels, _against(border)),
        ]
    return [
        _classes(kept, _for(text), ignored=void),
        _classes(pixels, _for(f"{void} fills regions, as a class does")),
    ]


def _classes_or_instances(sample: MaskSample, pixels: Counter[int]) -> list[KindReading]:
    """Return the readings of masks of plain values. Instance ids are one component each, and without a meaning across images."""
    ids = sample.instances_by_mask()
    numbers = [len(values) for values in ids]
    value, components = sample.most_components()
    several = _for(f"value {value} has {components} connected parts in one mask, so it is not one instance")
    found = _for(f"values {listed(sorted(pixels), _MAX_VALUES_SHOWN)} in {len(sample)} masks")
    if not ids or max(numbers) < 2:
        return [_classes(pixels, found)]
    if reasons := _many_instances(sample, pixels, ids):
        return [_instances(*reasons), _classes(pixels, _against(reasons[0].text))]
    single = sample.single_share()
    if single < _SHARE_OF_MASKS:
        return [_classes(pixels, found, several)]
    for_ids, for_classes = _compare(sample, ids)
    if not for_ids:
        return [_classes(pixels, found, *for_classes)]
    one = _for(f"each value is one connected part in {single:.0%} of the cases")
    if for_classes:  # evidence for both: the user decides
        return [_instances(one, *for_ids), _classes(pixels, found, *for_classes)]
    return [_instances(one, *for_ids), _classes(pixels, found, _against(one.text))]


def _many_instances(sample: MaskSample, pixels: Counter[int], ids: list[list[int]]) -> tuple[Evidence, ...]:
    """Return the evidence for instance ids from the number of values alone; none if there are few."""
    numbers = [len(values) for values in ids]
    without_gaps = all(values == list(range(1, len(values) + 1)) for values in ids)
    if without_gaps and len(set(numbers)) > min(3, len(ids) - 1) and max(numbers) > _MANY_INSTANCES:
        return (_for(f"values 1 to k without gaps, and k differs: {min(numbers)} to {max(numbers)}"),)
    if max(pixels) > 255 and len(pixels) > _MANY_INSTANCES:
        return (_for(f"{len(pixels)} different values up to {max(pixels)}"),)
    return ()


def _compare(sample: MaskSample, ids: list[list[int]]) -> tuple[list[Evidence], list[Evidence]]:
    """Return the evidence for instance ids and for classes, for masks in which each value is one component.

    Evidence for both, or for none, means that the user must decide.
    """
    numbers = [len(values) for values in ids]
    without_gaps = sum(values == list(range(1, len(values) + 1)) for values in ids) >= _SHARE_OF_MASKS * len(ids)
    is_varied = len(set(numbers)) > 1
    is_deep = all(facts.dtype == "uint16" for facts in sample.facts)
    for_ids, for_classes = [], []
    if is_deep:
        for_ids.append(_for("16-bit files, although the values would fit into 8 bits"))
    if without_gaps and is_varied:
        for_ids.append(_for(f"values 1 to k without gaps, and k differs: {min(numbers)} to {max(numbers)}"))
    n_values = len({value for values in ids for value in values})
    if not without_gaps and n_values > 2 * sample.median_values() + 2:
        for_ids.append(_for(f"{n_values} different values, of which a mask has {sample.median_values():g}"))
    chance = sample.chance_of_meaning(with_position=not is_varied)
    if chance <= _MEANINGFUL:
        for_classes.append(_for(f"regions of the same value resemble each other in all images (p = {chance:.3f})"))
    elif chance > _MEANINGLESS and len(ids) >= _MIN_MASKS_COMPARED and (without_gaps or for_ids):
        for_ids.append(_for(f"regions of the same value do not resemble each other (p = {chance:.2f})"))
    is_weak = max(numbers) < 3 or not (is_varied or is_deep) or not without_gaps
    if for_ids and not for_classes and is_weak and not is_deep:
        for_classes.append(_for(f"a mask has only {max(numbers)} values, or gaps, or always the same number of values"))
    return for_ids, for_classes
