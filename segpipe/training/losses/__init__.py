"""The training loss: a weighted sum of terms, which ignore pixels labelled `IGNORE`."""

from segpipe.training.losses.combined import SegmentationLoss

__all__ = ["SegmentationLoss"]
