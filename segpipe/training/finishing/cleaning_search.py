"""How the finished model's class ids are mended: chosen on the validation split, and kept only where that was shown to help.

Each step (where the borders between classes lie, then the smallest region of each class) is chosen on one half of the images and
counted on the other, and the other way round. It is kept where, so counted, the lower bound of the gain in IoU is above 0
(bootstrap over images); what is kept is then chosen on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from segpipe.inference.cleaning import Cleaning, Ids, cleaned, region_sizes, without
from segpipe.metrics import confusion, macro, tallies
from segpipe.samples import IGNORE
from segpipe.training.finishing.decision_thresholds import candidate_cleanings, decide

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter
    from segpipe.training.sampling.crops import Reader

SIZES = (4, 16, 64, 256, 1024)
MIN_IMAGES = 8
"""Fewer show nothing."""
_CONFIDENCE = 0.95
_MOST_IMAGES, _MOST_PIXELS = 64, 16 << 20
_RESAMPLES = 1000

Tally = npt.NDArray[np.int64]
"""(n_images, 3, n_classes): hits, pixels in the truth, pixels predicted."""
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class CleaningChoice:
    """A cleaning, or None, and the tallies of the images looked at: as predicted, and as that cleaning leaves them."""

    cleaning: Cleaning | None
    before: Tally
    after: Tally

    @property
    def gain(self) -> float:
        """What the IoU gains on the images that chose; on others it is a little less."""
        return iou(self.after) - iou(self.before)


@dataclass(frozen=True)
class _Step(Generic[Choice]):
    """One thing to choose: by tallies of some images, with tallies of all images under a choice."""

    choose: Callable[[npt.NDArray[np.intp]], Choice]
    under: Callable[[Choice], Tally]


def choose_cleaning(segmenter: Segmenter, val: Reader, weights: Sequence[float], seed: int) -> CleaningChoice:
    """The cleaning of a model that has none yet, by the images of `looked_at`, each of which is segmented once.

    weights: of the classes in the loss that the model was trained with, by id.
    """
    n_classes = len(segmenter.spec.classes)
    options = candidate_cleanings(n_classes, weights)
    truths, ids_by_option = _segmented(segmenter, val, search_images(val), options)
    tallied = [_tally(truths, ids, n_classes) for ids in ids_by_option]
    best = _kept(_first_of_best(tallied), tallied[0], seed) or 0
    moving, ids = options[best], ids_by_option[best]
    least = _kept(_sizes_step(truths, ids, n_classes), tallied[best], seed)
    cleaning = moving.model_copy(update={"least": least if least and any(least) else ()})
    after = _tally(truths, [cleaned(i, cleaning.least) for i in ids], n_classes)
    return (
        CleaningChoice(cleaning, tallied[0], after)
        if iou(after) > iou(tallied[0])
        else CleaningChoice(None, tallied[0], tallied[0])
    )


def search_images(val: Reader) -> list[int]:
    """Places of validation images, evenly spread: at most 64, and no more than 16 million pixels by the size of the first."""
    if not len(val):
        return []
    labels = val[0].labels
    assert labels is not None
    most = min(_MOST_IMAGES, _MOST_PIXELS // labels.size, len(val))
    return [int(i) for i in np.unique(np.linspace(0, len(val) - 1, most).astype(int))] if most else []


def iou(tally: Tally) -> float:
    """Macro IoU over all images together; 0 where nothing was counted."""
    return float(np.nan_to_num(macro("iou", tally.sum(0))))


def gain_lower_bound(before: Tally, after: Tally, seed: int) -> float:
    """The lower bound of what the macro IoU over all images gains, by a paired bootstrap over images."""
    n = len(before)
    times = np.random.default_rng(seed).multinomial(n, [1 / n] * n, _RESAMPLES)
    drawn = [np.nan_to_num(macro("iou", np.tensordot(times, tally, 1))) for tally in (before, after)]
    return float(np.quantile(drawn[1] - drawn[0], 1 - _CONFIDENCE))


def _kept(step: _Step[Choice], before: Tally, seed: int) -> Choice | None:
    """What a step chooses on all images, where what it chooses on one half helps on the other."""
    places = np.arange(len(before))
    crossed = before.copy()
    for half in (places % 2 == 0, places % 2 == 1):
        crossed[~half] = step.under(step.choose(places[half]))[~half]
    return step.choose(places) if gain_lower_bound(before, crossed, seed) > 0 else None


def _segmented(
    segmenter: Segmenter, val: Reader, places: list[int], options: list[Cleaning]
) -> tuple[list[Ids], list[list[Ids]]]:
    """The truths, and for each of the options the class ids that follow from it."""
    truths: list[Ids] = []
    ids: list[list[Ids]] = [[] for _ in options]
    for place in places:
        sample = val[place]
        assert sample.labels is not None
        said = segmenter.segment(sample, probabilities=len(options) > 1)
        truths.append(np.asarray(sample.labels))
        for found, how in zip(ids, options, strict=True):
            found.append(said.class_ids if said.probabilities is None else decide(said.probabilities, how))
    return truths, ids


def _tally(truths: list[Ids], ids: list[Ids], n_classes: int) -> Tally:
    return tallies(np.stack([confusion(t, i, n_classes) for t, i in zip(truths, ids, strict=True)]))


def _first_of_best(tallied: list[Tally]) -> _Step[int]:
    """The option of the highest IoU; of equal ones the first, which changes least."""

    def choose(places: npt.NDArray[np.intp]) -> int:
        return int(np.argmax([iou(tally[places]) for tally in tallied]))

    return _Step(choose, tallied.__getitem__)


def _sizes_step(truths: list[Ids], ids: list[Ids], n_classes: int) -> _Step[tuple[int, ...]]:
    """Sizes are chosen class by class as if what goes in one class did not change what is nearest in another."""
    before = _tally(truths, ids, n_classes)
    changes = np.stack([_changes(t, i, n_classes) for t, i in zip(truths, ids, strict=True)])

    def under(least: tuple[int, ...]) -> Tally:
        rows = [changes[:, SIZES.index(size), label] for label, size in enumerate(least) if size]
        return before + sum(rows, np.zeros_like(before))

    def choose(places: npt.NDArray[np.intp]) -> tuple[int, ...]:
        summed, base = changes[places].sum(0), before[places].sum(0)
        least = [0] * n_classes
        for label in range(n_classes):
            options = [base, *(base + summed[row, label] for row in range(len(SIZES)))]
            best = int(np.argmax([np.nan_to_num(macro("iou", option)) for option in options]))
            base, least[label] = options[best], (0, *SIZES)[best]
        return tuple(least)

    return _Step(choose, under)


def _changes(truth: Ids, ids: Ids, n_classes: int) -> Tally:
    """(sizes, n_classes, 3, n_classes): what the tally of an image gains where the regions of a class under a size go."""
    found = np.zeros((len(SIZES), n_classes, 3, n_classes), np.int64)
    regions = region_sizes(ids, np.ones(256, bool))
    for row, size in enumerate(SIZES):
        gone = regions < size
        mended = without(ids, gone)
        counted = gone & (truth != IGNORE)
        was, now, true = ids[counted].astype(np.intp), mended[counted].astype(np.intp), truth[counted]
        for place, pixels in ((0, true == now), (2, slice(None))):
            pairs = np.bincount(was[pixels] * n_classes + now[pixels], minlength=n_classes**2)
            found[row, :, place] += pairs.reshape(n_classes, n_classes)
        for place, pixels in ((0, true == was), (2, slice(None))):
            found[row, range(n_classes), place, range(n_classes)] -= np.bincount(was[pixels], minlength=n_classes)
    return found
