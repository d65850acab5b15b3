"""Reading the layouts that labelled images come in: one module per layout."""
