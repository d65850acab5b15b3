"""Curation: images whose labels should be checked."""
