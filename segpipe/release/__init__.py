"""Releases: export of the winner as a bundle, packaging as a Bento, the blessing, and the registry of versions and stages."""
