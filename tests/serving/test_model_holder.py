"""Tests of the live model: it is loaded, replaced, and kept if the new one is broken."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import DataError, MissingError
from segpipe.files import write_json, write_text
from segpipe.serving.model_holder import ModelHolder
from tests.worlds.bundles import toy_image
from tests.worlds.served_bundles import point


def wait_for(condition, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return result


def test_it_follows_the_endpoint_file(endpoint: Path, bundles: list[Path]) -> None:
    holder = ModelHolder(endpoint, bundles[0])
    assert holder.current.info.version == "v0.1.0" and holder.current.info.git_commit == "c" * 40
    assert holder.refresh() is False
    former = holder.current
    point(endpoint, 2)
    assert holder.refresh() is True and holder.current.info.version == "v0.2.0"
    image = toy_image(0)
    before, after = (model.segmenter.predict(image).class_ids for model in (former, holder.current))
    assert (before != after).any(), "a request that holds the former model still uses it, and its masks are others"
    point(endpoint, 1)
    assert holder.refresh() is True and np.array_equal(holder.current.segmenter.predict(image).class_ids, before)


def test_a_broken_release_leaves_the_old_model(
    endpoint: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, checks = ModelHolder(endpoint, bundles[0], poll_s=0.02), []
    refresh = holder.refresh
    monkeypatch.setattr(holder, "refresh", lambda: checks.append(None) or refresh())

    def wait_for_check() -> None:
        """Wait until a check of the file that began after this call has ended."""
        before = len(checks)
        assert wait_for(lambda: len(checks) > before + 2)

    holder.start()
    try:
        (endpoint.parent / "../releases/v0.2.0/bundle/model.onnx").write_bytes(b"torn")
        seen = holder._seen
        point(endpoint, 2, bundle_sha256="1" * 64)
        assert wait_for(lambda: holder._seen != seen)
        for break_it in (
            lambda: point(endpoint, 2),  # the hash is right, but the graph is still broken
            lambda: write_text(endpoint, "{ not json"),
            lambda: write_json(endpoint, {"version": "v0.2.0"}),
            lambda: point(endpoint, 7),  # a release that does not exist
            endpoint.unlink,
        ):
            break_it()
            wait_for_check()
            assert holder.current.info.version == "v0.1.0"
        point(endpoint, 1, version="v0.1.1")
        assert wait_for(lambda: holder.current.info.version == "v0.1.1"), "the file is still watched"
    finally:
        holder.stop()


def test_a_release_that_cannot_be_loaded_is_tried_again(
    endpoint: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the bundle may be incomplete for a moment, or a network drive away."""
    now = [0.0]
    monkeypatch.setattr("segpipe.serving.model_holder.time.monotonic", lambda: now[0])
    holder = ModelHolder(endpoint, bundles[0])
    graph = endpoint.parent / "../releases/v0.2.0/bundle/model.onnx"
    complete = graph.read_bytes()
    point(endpoint, 2)
    graph.write_bytes(b"torn")
    for attempt, pause in enumerate((1, 2, 4), start=1):
        with pytest.raises(DataError, match="not the one that was released"):
            holder.refresh()
        assert holder.pending is not None and (holder.pending.version, holder.pending.attempts) == ("v0.2.0", attempt)
        assert holder.pending.error == "the bundle is not the one that was released", "without paths of the server"
        now[0] += pause - 0.1
        assert holder.refresh() is False, "not yet"
        now[0] += 0.1
    graph.write_bytes(complete)
    assert holder.refresh() is True
    assert holder.current.info.version == "v0.2.0" and holder.pending is None


def test_errors_of_a_start(endpoint: Path, bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nothing is promoted"):
        ModelHolder(tmp_path / "none.json", bundles[0])
    point(endpoint, 1, bundle_sha256="1" * 64)
    with pytest.raises(DataError, match="not the one that was released"):
        ModelHolder(endpoint, bundles[0])
    with pytest.raises(MissingError):
        ModelHolder(None, tmp_path)


def test_each_request_uses_one_model(endpoint: Path, bundles: list[Path]) -> None:
    """Threads predict while the model is replaced several times: each mask is that of the reported version."""
    holder = ModelHolder(endpoint, bundles[0], poll_s=0.005)
    image = toy_image(5)
    from segpipe.inference.segmenter import Segmenter

    expected = {f"v0.{i}.0": Segmenter.from_bundle(b).predict(image).class_ids for i, b in enumerate(bundles, 1)}
    wrong, seen, stop = [], set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            model = holder.current
            seen.add(model.info.version)
            if not np.array_equal(model.segmenter.predict(image).class_ids, expected[model.info.version]):
                wrong.append(model.info.version)

    holder.start()
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in (2, 1, 2, 1):
            point(endpoint, number)
            seen.clear()
            assert wait_for(lambda n=number: f"v0.{n}.0" in seen)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        holder.stop()
    assert not wrong


def test_the_service_imports_nothing_heavy(bundle: Path) -> None:
    """A Bento installs fewer packages than segpipe: importing the service and answering must not need the others."""
    script = f"""
import os, sys
os.environ["SEGPIPE_BUNDLE"] = {str(bundle)!r}
import segpipe.serving.service as service
service.SegmenterService.inner()
from starlette.testclient import TestClient
image = service.app.state.holder.current.example[1]
client = TestClient(service.app)
for kind in ("mask", "overlay", "json"):
    assert client.post(f"/v1/segment?format={{kind}}&preview=true", files={{"image": image}}).status_code == 200
heavy = "torch torchvision pandas albumentations dvc prefect sklearn skimage scipy pyarrow monai gto great_expectations"
print([name for name in heavy.split() if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")
