"""Labelled images: import and export, the canonical layout, the manifest, splits, shards and the demo data."""
