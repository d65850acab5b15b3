"""Evaluation of a trained candidate on the test split: scores with confidence intervals.

| module | what it holds |
|---|---|
| `evaluate` | the evaluation of one candidate, from the model to the files |
| `scoring` | the images of a split, scored one by one |
| `scores`, `scores_file` | the counts of each image, and their file per_image.parquet |
| `metrics_file` | metrics.json |
| `metric_lookup` | metrics by name: values, intervals, comparisons, words |
| `instance_metrics`, `instance_counts` | instance metrics |
| `statistics`, `paired_statistics` | intervals, and comparisons of two models |
| `slices`, `slice_attributes` | parts of the test images with a common attribute |
| `calibration`, `surfaces`, `cost` | confidences, surface distances, time and memory |
"""
