"""Scores of a trained candidate on the test split, with confidence intervals."""
