"""Predict image files: decode them, and write masks, overlays and tables of instances."""
