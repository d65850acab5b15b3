"""The embedded demo dataset: stained cells, drawn by integer arithmetic."""
