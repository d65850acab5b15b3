"""A tiny dataset in memory."""

from tests.worlds.tiny_training import _one_thread, train_reader, val_reader  # noqa: F401
