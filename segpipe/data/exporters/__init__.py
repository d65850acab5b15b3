"""Export of a dataset to the formats of other tools: one module per format."""
