"""Writing a dataset in the layouts of other tools: one module per layout."""
