"""Confusion matrices: which classes are predicted as which others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.evaluation.scores import Scores
from segpipe.metrics import Counts
from segpipe.pages.filters import hex_color
from segpipe.samples import ClassTable

MAX_MATRIX_CLASSES = 40
"""The largest confusion matrix that is drawn; if there are more classes, only the most frequent mistakes are listed."""
MISTAKES_SHOWN = 5


@dataclass(frozen=True)
class ConfusionCell:
    """One cell of a confusion matrix: its count of pixels, and its share of the pixels of the true class."""

    row: int
    """Index of the true class."""
    column: int
    """Index of the predicted class."""
    count: int
    share: float


@dataclass(frozen=True)
class ConfusionMatrix:
    """A confusion matrix as pages show it."""

    cells: list[ConfusionCell]
    """All cells that are not 0; empty if the matrix is too large to be drawn."""
    mistakes: list[ConfusionCell]
    """The most frequent mistakes."""
    totals: list[int]
    """Pixels of each true class."""

    @classmethod
    def of(cls, counts: Counts) -> ConfusionMatrix:
        """Prepare a confusion matrix. counts: (n, n), pixels by true and predicted class."""
        cells = confusion_cells(counts) if len(counts) <= MAX_MATRIX_CLASSES else []
        return cls(cells, worst_confusions(counts, MISTAKES_SHOWN), counts.sum(1).tolist())


def confusion_cells(counts: Counts) -> list[ConfusionCell]:
    """Return the cells of a confusion matrix that are not 0, row by row. counts: (n, n), pixels by true and predicted class."""
    totals = counts.sum(1)
    return [
        ConfusionCell(int(i), int(j), int(counts[i, j]), float(counts[i, j] / totals[i]))
        for i, j in np.argwhere(counts > 0)
    ]


def worst_confusions(counts: Counts, most: int) -> list[ConfusionCell]:
    """Return the cells outside the diagonal with the largest shares of their true class, at most `most` of them."""
    mistakes = [cell for cell in confusion_cells(counts) if cell.row != cell.column]
    return sorted(mistakes, key=lambda cell: (-cell.share, cell.row, cell.column))[:most]


@dataclass(frozen=True)
class ConfusionLabels:
    """The labels that confusion matrices are about, with their names and colours.

    A label is a class or, if classes overlap, a set of classes.
    """

    names: list[str]
    colors: list[str]
    """The CSS colours of the labels."""
    counts: list[Counts]
    """The confusion matrix of each model, over these labels."""

    @classmethod
    def of(cls, scores: Sequence[Scores], classes: ClassTable | None) -> ConfusionLabels:
        """Collect the labels of models with the same classes; sets of overlapping classes only if they occur.

        Args:
            scores: One per model, of the same images.
            classes: Gives the colours; None if they are not known.
        """
        labelling = scores[0].labelling
        shown = np.arange(labelling.n_labels)
        if scores[0].overlapping:
            occurrences = np.sum([one.confusion.sum(0) + one.confusion.sum(1) for one in scores], axis=0)
            shown = np.flatnonzero((occurrences > 0) | (shown == 0))
        names = labelling.names(scores[0].classes)
        colors = [hex_color(c) for c in classes.palette.tolist()] if classes else ["transparent"] * len(names)
        matrices = [one.confusion[np.ix_(shown, shown)] for one in scores]
        return cls([names[i] for i in shown], [colors[i] for i in shown], matrices)
