"""What training makes small: a weighted sum of terms, blind to pixels labelled `IGNORE`."""

from segpipe.training.losses.combined import SegmentationLoss

__all__ = ["SegmentationLoss"]
