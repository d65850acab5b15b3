"""Metrics of segmentations. Definitions, formulas, rules for empty masks and sources: docs/metrics.md.

| module | what it compares |
|---|---|
| `counting` | pixels: confusion matrices, and the tallies from which all ratios follow |
| `semantic` | classes: IoU, Dice, precision, recall, accuracies, Matthews correlation, by name |
| `surface` | boundaries: boundary IoU, Hausdorff 95, average surface distance, surface Dice, in pixels or mm |
| `instances` | instances: precision, recall and F1 at IoU thresholds, panoptic quality |
| `average_precision` | instances with confidences: COCO mask AP |
| `detections` | COCO mask AP of any resample of images |
| `calibration` | probabilities: expected calibration error, reliability, temperature |
"""

from segpipe.metrics.counting import Counts, Tallies, Values, confusion, tallies
from segpipe.metrics.semantic import (
    MAIN_METRIC,
    RATIOS,
    Metric,
    accuracy_macro,
    macro,
    macro_in_truth,
    matthews,
    metric,
    metric_names,
    micro,
    per_class,
    scores,
    weighted,
)

__all__ = [
    "MAIN_METRIC",
    "RATIOS",
    "Counts",
    "Metric",
    "Tallies",
    "Values",
    "accuracy_macro",
    "confusion",
    "macro",
    "macro_in_truth",
    "matthews",
    "metric",
    "metric_names",
    "micro",
    "per_class",
    "scores",
    "tallies",
    "weighted",
]
