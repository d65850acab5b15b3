"""Packaging: the Bento of a version, the environment and the server that it runs in, and the blessing that tests it."""
