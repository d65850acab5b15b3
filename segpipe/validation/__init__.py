"""Checks of the dataset: the manifest against a table of expectations."""
