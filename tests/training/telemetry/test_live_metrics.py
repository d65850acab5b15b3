"""The curves of a training."""

import pytest

from segpipe.errors import ConfigError
from segpipe.training.telemetry.live_metrics import live_metrics


def test_the_error_of_a_training_is_reported_even_if_its_curves_cannot_be_closed(tmp_path, monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dvclive.Live.end", no_thread)
    with pytest.raises(ConfigError, match="out of memory") as caught, live_metrics(tmp_path):
        raise ConfigError("out of memory with 1 image")
    assert caught.value.__notes__ == ["the end of its curves may be missing: can't start new thread"]
