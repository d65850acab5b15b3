"""Tests of a real `bentoml serve`: its answers, replacing its model, and its end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from segpipe.data.images import encode_png
from segpipe.errors import ConfigError, SegpipeError
from segpipe.inference.files.render import mask_png
from segpipe.inference.segmenter import Segmenter
from segpipe.release.packaging.bento_server import Server, bentoml_environment, start_server
from segpipe.serving.server import SERVICE, check_port
from segpipe.serving.settings import BUNDLE, ENDPOINT
from tests.worlds.bundles import toy_image
from tests.worlds.served_bundles import point

pytestmark = pytest.mark.slow

IMAGE = toy_image(9, 60, 75)
PNG = encode_png(IMAGE)


@pytest.fixture
def client(served: tuple[Server, Path]):
    point(served[1], 1)
    with httpx.Client(base_url=served[0].url, trust_env=False, timeout=60) as connection:
        wait_for_version(connection, "v0.1.0")
        yield connection


def wait_for_version(client: httpx.Client, version: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while (current := client.get("/v1/model").json()["version"]) != version:
        assert time.monotonic() < end, f"still {current}"
        time.sleep(0.05)


def expected_mask(bundle: Path) -> bytes:
    segmenter = Segmenter.from_bundle(bundle)
    return mask_png(segmenter.predict(IMAGE), segmenter.spec.classes)


def test_it_answers(client: httpx.Client, bundles: list[Path]) -> None:
    answer = client.post("/v1/segment", files={"image": ("x.png", PNG)})
    assert answer.status_code == 200 and answer.content == expected_mask(bundles[0])
    assert answer.headers["x-model-version"] == "v0.1.0"
    assert "page/app.js" in client.get("/").text, "segpipe's page, not that of the framework"
    assert client.get("/page/app.js").status_code == 200
    assert {client.get(path).status_code for path in ("/readyz", "/livez", "/metrics")} == {200}
    assert client.get("/v1/nothing").status_code == 404 and client.get("/v1/segment").status_code == 405
    assert client.get("/page/../service.py").status_code == 404 == client.get("/page/%2e%2e/service.py").status_code


def test_bad_uploads_get_a_reason(client: httpx.Client) -> None:
    def chunks():
        for _ in range(3000):
            yield b"\0" * 1024

    cases = [
        (client.post("/v1/segment", files={"image": ("notes.txt", b"words")}), 422),
        (client.post("/v1/segment", files={"image": ("x.png", PNG[:200])}), 422),
        (client.post("/v1/segment", files={"image": ("x.png", b"\0" * (3 << 20))}), 413),
        (client.post("/v1/segment", content=chunks(), headers={"content-type": "image/png"}), 413),
        (client.post("/v1/segment", files={"picture": ("x.png", PNG)}), 400),
        (client.post("/v1/segment", json={}), 415),
    ]
    for answer, status in cases:
        assert answer.status_code == status and answer.json()["error"], answer.text


def test_no_request_fails_while_models_change(
    client: httpx.Client, served: tuple[Server, Path], bundles: list[Path]
) -> None:
    expected = {f"v0.{number}.0": expected_mask(bundle) for number, bundle in enumerate(bundles, 1)}
    assert expected["v0.1.0"] != expected["v0.2.0"]
    seen: list[str] = []
    done = threading.Event()

    def ask(_: int) -> bool:
        answer = client.post("/v1/segment", files={"image": ("x.png", PNG)})
        version = answer.headers.get("x-model-version", "none")
        seen.append(version)
        return answer.status_code == 200 and answer.content == expected[version]

    def swap() -> None:
        try:
            for number in (2, 1, 2):
                point(served[1], number)
                wait_for_version(client, f"v0.{number}.0")
        finally:
            done.set()

    answers: list[bool] = []
    with ThreadPoolExecutor(5) as pool:
        swapped = pool.submit(swap)
        while len(answers) < 200 or not done.is_set():
            answers += pool.map(ask, range(40))
    swapped.result()
    assert all(answers), f"{answers.count(False)} of {len(answers)} requests failed"
    assert set(seen) == set(expected)


def served_from(bundle: Path) -> list[psutil.Process]:
    """Return the processes of a server of this bundle, whatever their parent is now."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(BUNDLE) == str(bundle):
                processes.append(process)
    return processes


def test_a_server_that_cannot_start_reports_why_and_leaves_no_process(tmp_path: Path) -> None:
    with (
        pytest.raises(SegpipeError, match=r"server (ended with|was not ready).*no model in this folder"),
        start_server(SERVICE, settings={BUNDLE: str(tmp_path)}, deadline_s=60),
    ):
        pass
    assert not served_from(tmp_path)


def test_a_server_ends_with_all_its_processes(tmp_path: Path, bundle: Path) -> None:
    with start_server(SERVICE, settings={BUNDLE: str(bundle), "SEGPIPE_WORKERS": "2"}) as server:
        tree = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        assert len(tree) >= 3, "a parent and two workers"
        answer = httpx.post(f"{server.url}/v1/segment", files={"image": PNG}, trust_env=False, timeout=60)
        assert answer.headers["x-model-version"] == "unreleased"
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_workers_end_when_the_main_process_is_killed(bundle: Path) -> None:
    """They would keep the port, and a second server would start beside them."""
    with start_server(SERVICE, settings={BUNDLE: str(bundle), "SEGPIPE_WORKERS": "2"}) as server:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert len(workers) >= 2
        end = time.monotonic() + 60
        while server.log.read_text().count("Service segmenter initialized") < 2:
            assert time.monotonic() < end, server.log_tail()
            time.sleep(0.05)
        server.process.kill()
        assert not psutil.wait_procs(workers, timeout=60)[1]


def test_the_log_says_which_version_is_live(endpoint: Path) -> None:
    with start_server(SERVICE, settings={ENDPOINT: str(endpoint)}) as server:
        point(endpoint, 2)
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            wait_for_version(client, "v0.2.0")
        assert "INFO model v0.2.0 is live now (before: v0.1.0)" in server.log_tail()


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: another process listens.*--port 3001"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:3000: cannot listen on this address"):
        check_port("192.0.2.1", 3000)


def test_a_server_inherits_none_of_segpipes_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(BUNDLE, "/elsewhere")
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    environment = bentoml_environment(tmp_path)
    assert (
        BUNDLE not in environment
        and environment["BENTOML_HOME"] == str(tmp_path)
        and environment["PATH"] == os.environ["PATH"]
    )
    monkeypatch.setenv("BENTOML_HOME", "/users/choice")
    assert bentoml_environment(tmp_path)["BENTOML_HOME"] == "/users/choice"
