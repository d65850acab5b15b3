"""The manifest, one row per image, and its summary, the fingerprint."""
