"""Fixtures: an evaluated workspace."""

from tests.worlds.evaluated_workspace import evaluated, fingerprint, params, reader, serve, shards, workspace  # noqa: F401
