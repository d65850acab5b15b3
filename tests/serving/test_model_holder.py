"""The model that answers: loaded, exchanged, and kept when the new one is broken."""

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
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return done


def test_it_follows_the_endpoint_file(endpoint: Path, bundles: list[Path]) -> None:
    champion = ModelHolder(endpoint, bundles[0])
    assert champion.current.info.version == "v0.1.0" and champion.current.info.git_commit == "c" * 40
    assert champion.refresh() is False
    held = champion.current
    point(endpoint, 2)
    assert champion.refresh() is True and champion.current.info.version == "v0.2.0"
    image = toy_image(0)
    before, after = (serving.segmenter.predict(image).class_ids for serving in (held, champion.current))
    assert (before != after).any(), "the former model still answers whoever holds it, and answers otherwise"
    point(endpoint, 1)
    assert champion.refresh() is True and np.array_equal(champion.current.segmenter.predict(image).class_ids, before)


def test_a_broken_release_leaves_the_old_model(endpoint: Path, bundles: list[Path]) -> None:
    champion = ModelHolder(endpoint, bundles[0], poll_s=0.02)
    champion.start()
    try:
        (endpoint.parent / "../releases/v0.2.0/bundle/model.onnx").write_bytes(b"torn")
        seen = champion._seen
        point(endpoint, 2, bundle_sha256="1" * 64)
        assert wait_for(lambda: champion._seen != seen)
        point(endpoint, 2)  # the hash is right, and the graph still no graph
        write_text(endpoint, "{ not json")
        write_json(endpoint, {"version": "v0.2.0"})
        point(endpoint, 7)
        endpoint.unlink()
        time.sleep(0.3)
        assert champion.current.info.version == "v0.1.0"
        point(endpoint, 1, version="v0.1.1")
        assert wait_for(lambda: champion.current.info.version == "v0.1.1"), "the watch goes on"
    finally:
        champion.stop()


def test_errors_of_a_start(endpoint: Path, bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nothing is promoted"):
        ModelHolder(tmp_path / "none.json", bundles[0])
    point(endpoint, 1, bundle_sha256="1" * 64)
    with pytest.raises(DataError, match="not the one that was released"):
        ModelHolder(endpoint, bundles[0])
    with pytest.raises(MissingError):
        ModelHolder(None, tmp_path)


def test_requests_meet_one_model_or_the_other(endpoint: Path, bundles: list[Path]) -> None:
    """Threads predict while the model is exchanged to and fro: each answer is that of the model it says it is from."""
    champion = ModelHolder(endpoint, bundles[0], poll_s=0.005)
    image = toy_image(5)
    from segpipe.inference.segmenter import Segmenter

    expected = {f"v0.{i}.0": Segmenter.from_bundle(b).predict(image).class_ids for i, b in enumerate(bundles, 1)}
    wrong, seen, stop = [], set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            serving = champion.current
            seen.add(serving.info.version)
            if not np.array_equal(serving.segmenter.predict(image).class_ids, expected[serving.info.version]):
                wrong.append(serving.info.version)

    champion.start()
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
        champion.stop()
    assert not wrong


def test_the_service_stays_light(bundle: Path) -> None:
    """What a Bento installs is less than what segpipe needs: importing and answering must not reach for the rest."""
    script = f"""
import os, sys
os.environ["SEGPIPE_BUNDLE"] = {str(bundle)!r}
import segpipe.serving.service as service
service.SegmenterService.inner()
from starlette.testclient import TestClient
image = service.app.state.champion.current.example[1]
client = TestClient(service.app)
for kind in ("mask", "overlay", "json"):
    assert client.post(f"/v1/segment?format={{kind}}&preview=true", files={{"image": image}}).status_code == 200
heavy = "torch torchvision pandas albumentations dvc prefect sklearn skimage scipy pyarrow monai gto great_expectations"
print([name for name in heavy.split() if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")
