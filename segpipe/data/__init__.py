"""Labelled images: import, the canonical layout, manifest, splits, shards, the demo data."""
