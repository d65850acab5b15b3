"""The cleaning of the finished model's class ids: chosen on the validation split, and used only if the gain is significant.

Each step (first the thresholds between classes, then the smallest region of each class) is chosen on one half of the images and
scored on the other, and the other way round. It is used if the lower confidence bound of the gain in IoU so scored is above 0
(bootstrap over images); its final setting is then chosen on all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from segpipe.inference.cleaning import ClassIds, Cleaning, fill_from_nearest, region_sizes, remove_small_regions
from segpipe.metrics import confusion, macro_in_truth, tallies
from segpipe.samples import IGNORE
from segpipe.training.finishing.decision_thresholds import candidate_cleanings, decide

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter
    from segpipe.training.sampling.crops import Reader

SIZES = (4, 16, 64, 256, 1024)
"""Candidates for the smallest region of a class, in pixels."""
MIN_IMAGES = 8
"""With fewer validation images, no gain is significant."""
_CONFIDENCE = 0.95
_MAX_IMAGES, _MAX_PIXELS = 64, 16 << 20
_RESAMPLES = 1000

Tally = npt.NDArray[np.int64]
"""(n_images, 3, n_classes): hits, pixels in the truth, pixels predicted."""
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class CleaningChoice:
    """A cleaning, or None, with the tallies of the images that chose it."""

    cleaning: Cleaning | None
    before: Tally
    """Tallies of the predictions."""
    after: Tally
    """Tallies after the cleaning."""

    @property
    def gain(self) -> float:
        """The gain in IoU on the images that chose the cleaning; on other images it is slightly lower."""
        return iou(self.after) - iou(self.before)


@dataclass(frozen=True)
class _Step(Generic[Choice]):
    """One thing to choose."""

    choose: Callable[[npt.NDArray[np.intp]], Choice]
    """Choose on the images with these indices."""
    tally: Callable[[Choice], Tally]
    """The tallies of all images with a choice."""


def choose_cleaning(segmenter: Segmenter, val: Reader, weights: Sequence[float], seed: int) -> CleaningChoice:
    """Choose the cleaning of a model that has none yet, on the images of `search_images`, each of which is segmented once.

    Args:
        segmenter: the finished model.
        val: the validation split.
        weights: the class weights of the loss that the model was trained with, by class id.
        seed: the seed of the bootstrap.
    """
    n_classes = len(segmenter.spec.classes)
    options = candidate_cleanings(n_classes, weights)
    indices = search_images(val)
    held = _classes_in(val, indices, n_classes)
    options = [_neutral_where_absent(option, held) for option in options]
    truths, ids_by_option = _segment(segmenter, val, indices, options)
    tally_by_option = [_tally(truths, ids, n_classes) for ids in ids_by_option]
    if held.sum() < 2:  # whatever removes predictions would look like a gain
        return CleaningChoice(None, tally_by_option[0], tally_by_option[0])
    best = _choose_if_significant(_thresholds_step(tally_by_option), tally_by_option[0], seed) or 0
    thresholds, ids = options[best], ids_by_option[best]
    sizes = _choose_if_significant(_sizes_step(truths, ids, held), tally_by_option[best], seed)
    cleaning = thresholds.model_copy(update={"least": sizes if sizes and any(sizes) else ()})
    before = tally_by_option[0]
    after = _tally(truths, [remove_small_regions(image_ids, cleaning.least) for image_ids in ids], n_classes)
    return CleaningChoice(cleaning, before, after) if iou(after) > iou(before) else CleaningChoice(None, before, before)


def search_images(val: Reader) -> list[int]:
    """Return the indices of validation images, evenly spread: at most 64, and 16 million pixels by the size of the first."""
    if not len(val):
        return []
    labels = val[0].labels
    assert labels is not None
    count = min(_MAX_IMAGES, _MAX_PIXELS // labels.size, len(val))
    return [int(i) for i in np.unique(np.linspace(0, len(val) - 1, count).astype(int))] if count else []


def iou(tally: Tally) -> float:
    """Compute the macro IoU over all images together, over the classes that they hold; 0 if nothing was counted."""
    return float(np.nan_to_num(macro_in_truth("iou", tally.sum(0))))


def gain_lower_bound(before: Tally, after: Tally, seed: int) -> float:
    """Compute the lower 95 % confidence bound of the gain in macro IoU, by a paired bootstrap over images.

    Args:
        before: tallies of the images.
        after: tallies of the same images.
        seed: the seed of the bootstrap.
    """
    n = len(before)
    counts = np.random.default_rng(seed).multinomial(n, [1 / n] * n, _RESAMPLES)
    resampled = [np.nan_to_num(macro_in_truth("iou", np.tensordot(counts, tally, 1))) for tally in (before, after)]
    return float(np.quantile(resampled[1] - resampled[0], 1 - _CONFIDENCE))


def _choose_if_significant(step: _Step[Choice], before: Tally, seed: int) -> Choice | None:
    """Return the choice on all images, if the choice on one half of them improves the other half significantly."""
    indices = np.arange(len(before))
    crossed = before.copy()
    for half in (indices % 2 == 0, indices % 2 == 1):
        crossed[~half] = step.tally(step.choose(indices[half]))[~half]
    return step.choose(indices) if gain_lower_bound(before, crossed, seed) > 0 else None


def _segment(
    segmenter: Segmenter, val: Reader, indices: list[int], options: list[Cleaning]
) -> tuple[list[ClassIds], list[list[ClassIds]]]:
    """Return the truths of images, and for each option the class ids that follow from it."""
    truths: list[ClassIds] = []
    ids_by_option: list[list[ClassIds]] = [[] for _ in options]
    for index in indices:
        sample = val[index]
        assert sample.labels is not None
        prediction = segmenter.segment(sample, probabilities=len(options) > 1)
        truths.append(np.asarray(sample.labels))
        for ids, option in zip(ids_by_option, options, strict=True):
            probabilities = prediction.probabilities
            ids.append(prediction.class_ids if probabilities is None else decide(probabilities, option))
    return truths, ids_by_option


def _tally(truths: list[ClassIds], ids: list[ClassIds], n_classes: int) -> Tally:
    return tallies(np.stack([confusion(t, i, n_classes) for t, i in zip(truths, ids, strict=True)]))


def _thresholds_step(tally_by_option: list[Tally]) -> _Step[int]:
    """Choose the option with the highest IoU; of equal ones the first, which changes least."""

    def choose(indices: npt.NDArray[np.intp]) -> int:
        return int(np.argmax([iou(tally[indices]) for tally in tally_by_option]))

    return _Step(choose, tally_by_option.__getitem__)


def _classes_in(val: Reader, indices: list[int], n_classes: int) -> npt.NDArray[np.bool_]:
    """Return which classes the images hold, (n_classes,)."""
    counts = np.zeros(256, np.int64)
    for index in indices:
        counts += np.bincount(np.ravel(val[index].labels), minlength=256)  # type: ignore[arg-type]
    return counts[:n_classes] > 0


def _neutral_where_absent(cleaning: Cleaning, held: npt.NDArray[np.bool_]) -> Cleaning:
    """Return thresholds that do not shift the classes that the validation images do not hold."""
    if not cleaning.shifts:
        return cleaning
    shifts = tuple(shift if present else 0.0 for shift, present in zip(cleaning.shifts, held, strict=True))
    return cleaning.model_copy(update={"shifts": shifts if any(shifts) else ()})


def _sizes_step(truths: list[ClassIds], ids: list[ClassIds], held: npt.NDArray[np.bool_]) -> _Step[tuple[int, ...]]:
    """Choose the smallest region of each class that the images hold (`held`), one class after another; the others keep every region.

    It is assumed that regions removed from one class do not change which class is nearest to those of another.
    """
    n_classes = len(held)
    before = _tally(truths, ids, n_classes)
    changes = np.stack([_changes(t, i, n_classes) for t, i in zip(truths, ids, strict=True)])

    def tally(sizes: tuple[int, ...]) -> Tally:
        rows = [changes[:, SIZES.index(size), label] for label, size in enumerate(sizes) if size]
        return before + sum(rows, np.zeros_like(before))

    def choose(indices: npt.NDArray[np.intp]) -> tuple[int, ...]:
        change_sums, base = changes[indices].sum(0), before[indices].sum(0)
        sizes = [0] * n_classes
        for label in np.flatnonzero(held).tolist():
            options = [base, *(base + change_sums[row, label] for row in range(len(SIZES)))]
            best = int(np.argmax([np.nan_to_num(macro_in_truth("iou", option)) for option in options]))
            base, sizes[label] = options[best], (0, *SIZES)[best]
        return tuple(sizes)

    return _Step(choose, tally)


def _changes(truth: ClassIds, ids: ClassIds, n_classes: int) -> Tally:
    """Compute the change of an image's tally if the regions of a class below a size are removed.

    Returns:
        (sizes, n_classes, 3, n_classes): by size and by the class whose regions are removed.
    """
    changes = np.zeros((len(SIZES), n_classes, 3, n_classes), np.int64)
    regions = region_sizes(ids, np.ones(256, bool))
    for row, size in enumerate(SIZES):
        removed = regions < size
        new_ids = fill_from_nearest(ids, removed)
        counted = removed & (truth != IGNORE)
        was, now, true = ids[counted].astype(np.intp), new_ids[counted].astype(np.intp), truth[counted]
        for entry, pixels in ((0, true == now), (2, slice(None))):
            pairs = np.bincount(was[pixels] * n_classes + now[pixels], minlength=n_classes**2)
            changes[row, :, entry] += pairs.reshape(n_classes, n_classes)
        for entry, pixels in ((0, true == was), (2, slice(None))):
            lost = np.bincount(was[pixels], minlength=n_classes)
            changes[row, range(n_classes), entry, range(n_classes)] -= lost
    return changes
