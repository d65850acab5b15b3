"""Readings of a source: what its layout and its masks may mean, with the evidence for and against each."""
