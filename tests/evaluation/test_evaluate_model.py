"""`evaluate_model`: the engine that scores a trained model, what it computes, and what the stage imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segpipe.config import EvaluateParams
from segpipe.data.shards import write_shards
from segpipe.evaluation.evaluate import evaluate_model
from segpipe.evaluation.metrics_file import MetricsFile
from segpipe.evaluation.scores_file import read_scores
from segpipe.files import write_json
from segpipe.inference.engines import checked_graph
from segpipe.inference.engines.checked_graph import GraphMismatch
from segpipe.inference.engines.engine import OnnxEngine, TorchEngine
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.spec import WEIGHTS_FILE
from segpipe.inference.trained_engine import _build_network
from segpipe.samples import Sample
from tests.worlds.bundles import CLASSES, toy_image, toy_segmenter
from tests.worlds.trainings import register

PARAMS = EvaluateParams(gallery=2, resamples=200, robustness="quick")
VAL, TEST = 5, 7
PASSES_OF_ROBUSTNESS = 6 * TEST


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model, models/net, and shards of val and test with instances."""
    register()
    root = tmp_path_factory.mktemp("trained")
    write_model(root / "models" / "net", "tiny")
    for split, count in (("val", VAL), ("test", TEST)):
        images = [toy_image(index, 64, 64 if index % 2 else 96) for index in range(count)]
        samples = [
            Sample(f"{split}-{index}", image, image[..., 0] // 86, instances=(image[..., 0] // 86).astype(np.uint16))
            for index, image in enumerate(images)
        ]
        write_shards(root / "shards", split, samples, len(CLASSES))
    return root


def write_model(folder: Path, family: str, **options: object) -> None:
    """Write a network with random weights as if it had been trained."""
    changes = {"family": family, "options": options, "candidate": "net", "stride": 32}
    spec = toy_segmenter().spec.model_copy(update=changes | {"postprocess": Postprocess(method="components")})
    network = _build_network(spec).eval()
    if family == "tiny":
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 3  # confident, so that the temperature matters
    spec.write(folder)
    save_file(network.state_dict(), folder / WEIGHTS_FILE)
    write_json(folder / "history.json", {"best_score": 0.5})


def evaluate(inputs: Path, out: Path, params: EvaluateParams = PARAMS) -> MetricsFile:
    evaluate_model(inputs / "models" / "net", inputs / "shards", inputs / "splits.parquet", out, params, "net")
    return MetricsFile.read(out / "metrics.json")


@pytest.fixture
def on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs do not agree with torch."""

    def refuse(*_: object) -> None:
        raise GraphMismatch("the ONNX graph gives other classes than torch")

    monkeypatch.setattr(checked_graph.CheckedGraphEngine, "__call__", refuse)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of runs of each engine."""
    counts: Counter[str] = Counter()
    for engine, method in ((OnnxEngine, "__call__"), (TorchEngine, "run")):
        original = getattr(engine, method)

        def counted(self: object, batch: np.ndarray, original=original) -> object:
            counts[self.name] += 1
            return original(self, batch)

        monkeypatch.setattr(engine, method, counted)
    return counts


def test_the_graph_scores_as_torch_does(
    inputs: Path, tmp_path: Path, on_torch: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = evaluate(inputs, tmp_path / "torch")
    assert "the ONNX graph gives other classes than torch; torch, which is slower, scores the model" in " ".join(
        capsys.readouterr().err.split()
    )
    monkeypatch.undo()
    fast = evaluate(inputs, tmp_path / "graph")
    assert (slow.engine, fast.engine) == ("torch", "onnxruntime")
    assert slow.cost is not None and slow.cost.engine == "torch"
    assert fast.cost is not None and fast.cost.engine == "onnxruntime"
    ours, theirs = (read_scores(tmp_path / name / "per_image.parquet") for name in ("graph", "torch"))
    assert np.abs(ours.tally - theirs.tally).sum() <= 1e-4 * ours.tally.sum()
    expected, actual = (_numbers(json.loads(_path(tmp_path / name).read_text())) for name in ("torch", "graph"))
    assert expected.keys() == actual.keys() and len(expected) > 100
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, abs=1e-4), name


def _path(folder: Path) -> Path:
    return folder / "metrics.json"


def _numbers(content: object, prefix: str = "") -> dict[str, float]:
    """Every number in metrics.json except costs and the curves of calibration, whose bins are counts of pixels."""
    if isinstance(content, dict):
        skipped = ("cost", "curve", "engine")
        return {
            k: v for key in content if key not in skipped for k, v in _numbers(content[key], f"{prefix}.{key}").items()
        }
    return {prefix: float(content)}


def test_two_evaluations_give_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    for name in "ab":
        evaluate(inputs, tmp_path / name)
    a, b = ((tmp_path / name / "per_image.parquet").read_bytes() for name in "ab")
    assert a == b
    first, second = (MetricsFile.read(_path(tmp_path / name)).model_copy(update={"cost": None}) for name in "ab")
    assert first == second


def test_each_image_is_predicted_once(inputs: Path, tmp_path: Path, passes: Counter[str]) -> None:
    """val for the temperature, test for the scores, and the timed predictions; the gallery needs none."""
    metrics = evaluate(inputs, tmp_path / "out", PARAMS.model_copy(update={"robustness": "off"}))
    assert metrics.cost is not None
    timed = metrics.cost.runs + 2  # an untimed one of each of two sizes
    assert passes["onnxruntime"] == VAL + TEST + timed
    assert passes["torch"] in (3, 4), "the first three calls, and a fourth if those all had the same size"
    assert len(list((tmp_path / "out" / "gallery").glob("*-prediction.png"))) == 6


def test_robustness_predicts_each_corrupted_image_once(inputs: Path, tmp_path: Path, passes: Counter[str]) -> None:
    metrics = evaluate(inputs, tmp_path)
    assert metrics.cost is not None
    assert passes["onnxruntime"] == VAL + TEST + PASSES_OF_ROBUSTNESS + metrics.cost.runs + 2


def test_evaluation_imports_only_what_it_needs(tmp_path: Path, inputs: Path) -> None:
    """Each of these libraries takes between a tenth of a second and two seconds to import."""
    write_model(tmp_path / "models" / "net", "unet", encoder="tf_efficientnet_lite0", encoder_weights="none")
    (tmp_path / "shards").symlink_to(inputs / "shards")
    code = f"""
import sys
from pathlib import Path
from segpipe.config import EvaluateParams
from segpipe.evaluation.evaluate import evaluate_model
root = Path({str(tmp_path)!r})
evaluate_model(root / "models/net", root / "shards", root / "splits.parquet", root / "out", EvaluateParams(resamples=200), "net")
unneeded = {{"torch._dynamo", "torch._inductor", "sympy", "triton", "openvino", "matplotlib", "sklearn", "albumentations",
    "monai", "jinja2", "great_expectations", "prefect", "dvc", "bentoml", "scipy.stats", "segpipe.training.loop"}}
print(sorted(unneeded & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1] == "[]"
    assert MetricsFile.read(tmp_path / "out" / "metrics.json").engine == "onnxruntime"
