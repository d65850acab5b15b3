"""The main workflow, end to end, with the commands that users type, on one demo workspace."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.commands import commands_of
from tests.e2e.conftest import ROOT, Demo, release_second, run, run_all, shorten, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


def live_version(demo: Demo) -> str:
    models = json.loads(run("segpipe", "models", "--json", cwd=demo.root).out)
    return next(m["version"] for m in models if "prod" in m["stages"])


def wait_until(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.2)


def test_the_demo_ends_in_a_promoted_model(demo):
    selection = json.loads((demo.root / "selection.json").read_text())
    assert selection["promotable"]
    assert {g["name"]: g["verdict"] for g in selection["gates"] if g["mode"] == "block"} == {
        "floor": "pass",
        "baseline": "pass",
        "champion": "pass",
    }
    assert live_version(demo) == "v0.1.0"
    output = demo.first.out + demo.first.err
    for gate in selection["gates"]:
        assert gate["sentence"].split(":")[0] in output
    assert "segpipe report" in output and "segpipe serve" in output and "segpipe schedule" in output
    report = demo.root / "reports" / "report.html"
    assert report.stat().st_size < 8_000_000
    assert "http://" not in report.read_text().replace("http://www.w3.org", "")


def test_a_network_is_much_better_than_kmeans(demo):
    scores = {
        name: json.loads((demo.root / "evaluation" / name / "metrics.json").read_text())["test"]["iou"]["dataset"][
            "macro"
        ]
        for name in ("unet", "deeplabv3plus", "kmeans")
    }
    assert scores["unet"] > scores["kmeans"] + 0.05, "even after a few steps"


def test_a_second_run_does_nothing_again(demo):
    head = run("git", "rev-parse", "HEAD", cwd=demo.root).out
    lock = (demo.root / "dvc.lock").read_bytes()
    weights = (demo.root / "models" / "unet" / "weights.safetensors").stat().st_mtime_ns
    run("make", "demo", cwd=demo.checkout)
    assert run("git", "rev-parse", "HEAD", cwd=demo.root).out == head
    assert (demo.root / "dvc.lock").read_bytes() == lock
    assert (demo.root / "models" / "unet" / "weights.safetensors").stat().st_mtime_ns == weights
    again = json.loads(run("segpipe", "run", "--json", cwd=demo.root).out)
    assert again["ran"] == {}
    assert again["version"] == "v0.1.0"


def test_dvc_commands_work(demo):
    assert "up to date" in run("dvc", "status", cwd=demo.root).out
    assert "train@unet" in run("dvc", "dag", cwd=demo.root).out
    metrics = json.loads(run("dvc", "metrics", "show", "--json", cwd=demo.root).out)
    files = {k.replace("\\", "/"): v for k, v in metrics[""]["data"].items()}
    assert files["evaluation/unet/metrics.json"]["data"]["test"]["iou"]["dataset"]["macro"] > 0.8
    assert "evaluation/kmeans/metrics.json" in files
    run("dvc", "params", "diff", cwd=demo.root)
    text = (demo.root / "params.yaml").read_text()
    budget = re.search(r"budget: (\w+ steps)", text)[1]
    try:
        (demo.root / "params.yaml").write_text(text.replace(f"budget: {budget}", "budget: 41s"))
        changed = json.loads(run("dvc", "params", "diff", "--json", cwd=demo.root).out)
        assert changed["params.yaml"]["train.budget"] == {"old": budget, "new": "41s"}
    finally:
        (demo.root / "params.yaml").write_text(text)
    shown = json.loads(run("dvc", "exp", "show", "--json", cwd=demo.root).out)
    assert "evaluation/unet/metrics.json" in json.dumps(shown)
    plots = json.loads(run("dvc", "plots", "show", "--json", cwd=demo.root).out)
    assert "confusion" in json.dumps(plots) and "loss" in json.dumps(plots)


def test_verify_finds_a_release_in_the_cache_complete(demo):
    done = run("segpipe", "verify", "v0.1.0", cwd=demo.root)
    assert "v0.1.0" in done.out + done.err


def test_serve_predict_new_release_and_rollback(demo, free_port, background, tmp_path):
    base = f"http://127.0.0.1:{free_port}"
    server = background("segpipe", "serve", "--port", str(free_port), cwd=demo.root, log=tmp_path / "serve.log")
    wait_for(f"{base}/readyz")
    image = sorted((demo.root / "data" / "images").iterdir())[3]

    def ask() -> httpx.Response:
        with image.open("rb") as stream:
            return httpx.post(f"{base}/v1/segment", files={"image": (image.name, stream, "image/png")}, timeout=120)

    first = ask()
    assert first.status_code == 200
    assert first.headers["x-model-version"] == "v0.1.0"
    run("segpipe", "predict", image, "--out", tmp_path / "out", cwd=demo.root)
    masks = [p for p in (tmp_path / "out").rglob("*.png") if "mask" in str(p.relative_to(tmp_path / "out"))]
    assert first.content in [p.read_bytes() for p in masks]

    text = httpx.post(f"{base}/v1/segment", files={"image": ("notes.txt", b"not an image", "text/plain")})
    assert 400 <= text.status_code < 500
    assert text.json()["error"]
    lineage = httpx.get(f"{base}/v1/model").json()
    assert lineage["version"] == "v0.1.0"
    assert lineage["git_commit"] == run("git", "rev-parse", "segmenter@v0.1.0^{commit}", cwd=demo.root).out.strip()

    assert release_second(demo) == "v0.2.0"
    wait_until(lambda: ask().headers["x-model-version"] == "v0.2.0")
    second = ask()
    assert second.status_code == 200
    assert second.content != first.content

    run("segpipe", "rollback", "--stage", "prod", cwd=demo.root)
    wait_until(lambda: ask().headers["x-model-version"] == "v0.1.0")
    assert ask().content == first.content
    assert server.poll() is None, "the endpoint was restarted"
    assert live_version(demo) == "v0.1.0"
    server.send_signal(signal.SIGINT)
    assert server.wait(120) in (0, 130, -signal.SIGINT)


def test_a_worse_model_is_stopped_by_the_champion_gate_and_changes_nothing(demo):
    if len(json.loads(run("segpipe", "models", "--json", cwd=demo.root).out)) < 2:
        release_second(demo)
    selection = json.loads((demo.root / "selection.json").read_text())
    champion = next(gate for gate in selection["gates"] if gate["name"] == "champion")
    assert champion["verdict"] == "pass" and "v0.1.0" in champion["sentence"], (
        "the second release was compared with the first one"
    )
    live, tags = live_version(demo), run("git", "tag", cwd=demo.root).out
    shorten(demo.root, steps=8, seed=2, gates=True)
    stopped = run("segpipe", "run", cwd=demo.root, check=False)
    assert stopped.code == 4
    gates = {g["name"]: g for g in json.loads((demo.root / "selection.json").read_text())["gates"]}
    assert gates["champion"]["verdict"] != "pass"
    assert live in gates["champion"]["sentence"]
    assert gates["champion"]["sentence"].split(":")[0] in stopped.out + stopped.err
    assert live_version(demo) == live
    assert run("git", "tag", cwd=demo.root).out == tags


@pytest.mark.parametrize("commands", commands_of(ROOT, "checkout"))
def test_checkout(commands, demo):
    assert commands == ("make demo",), "the command that the fixture ran"
    assert demo.first.code == 0


def make_clip(image: Path, target: Path) -> None:
    """Write one second of video: the image, shifted from frame to frame."""
    import cv2

    shutil.rmtree(target.with_name("X-masks"), ignore_errors=True)
    picture = cv2.imread(str(image))
    height, width = (edge - edge % 2 for edge in picture.shape[:2])
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    for step in range(10):
        writer.write(np.roll(picture, 3 * step, axis=1)[:height, :width].copy())
    writer.release()


@pytest.mark.parametrize("commands", commands_of(ROOT, "demo"))
def test_demo_workspace(commands, demo, background, tmp_path):
    image = next((demo.root / "data" / "images").iterdir())
    shutil.copy(image, demo.root / "X.png")
    make_clip(image, demo.root / "X.mp4")
    if len(json.loads(run("segpipe", "models", "--json", cwd=demo.root).out)) < 2:
        release_second(demo)
    run("segpipe", "promote", "v0.2.0", cwd=demo.root)  # a rollback needs a version that was live before another one
    run_all(commands, demo.root, background, tmp_path)
    assert len(json.loads(run("segpipe", "models", "--json", cwd=demo.root).out)) >= 2, "no command removes a release"


@pytest.mark.parametrize("commands", commands_of(ROOT, "prefect"))
def test_prefect_commands(commands, demo, background, tmp_path):
    """Start server, pool, deployment and worker; then a run of the deployment succeeds."""
    import httpx

    env = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_HOME": str(tmp_path / "prefect")}
    for number, command in enumerate(commands):
        if command.endswith(" &"):
            background(*shlex.split(command[:-2]), cwd=demo.root, log=tmp_path / f"{number}.log", env=env)
            if "server" in command:
                wait_for("http://127.0.0.1:4200/api/health", 120)
        else:
            run("bash", "-c", command, cwd=demo.root, env=env)
    run("prefect", "deployment", "run", "retrain/weekly", "--watch", cwd=demo.root, env=env)
    states = httpx.post("http://127.0.0.1:4200/api/flow_runs/filter", json={}).json()
    done = [r for r in states if r["state_type"] == "COMPLETED"]
    assert done, states
