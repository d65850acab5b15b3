"""Validation of the dataset: the manifest against a table of checks.

| module | what it holds |
|---|---|
| `checks` | the table of checks |
| `frames` | the frames that they check |
| `expectations` | a manifest checked with Great Expectations |
| `findings` | the result, and its file findings.json |
| `duplicates`, `outliers`, `unknown_values` | columns of the frame of images |
| `preview` | the findings of data/ before the stages have run |
"""
