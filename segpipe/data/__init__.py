"""Images in: layouts, the manifest, splits, shards, the embedded demo data."""
