"""Curation: find images whose labels should be checked."""
