"""An evaluated workspace."""

from tests.worlds.evaluated_workspace import evaluated, fingerprint, params, reader, serve, shards, workspace  # noqa: F401
from tests.worlds.small_datasets import demo, make_data  # noqa: F401
