"""Tests of int8: accepted by its validation scores, shipped if it is faster, and reported in the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import ExportParams
from segpipe.inference.engines.engine import GRAPH_ENGINES, INT8_ENGINES, Int8Engine
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.segmenter import Segmenter
from segpipe.metrics import confusion, tallies
from segpipe.release.bundle import Card, bundle_sha256, model_sha256, replay_golden
from segpipe.release.export import int8
from segpipe.release.export.bundle_export import write_bundle
from segpipe.release.export.engine_selection import EngineTrial
from segpipe.samples import Sample
from tests.worlds.bundles import toy_image, toy_reader, toy_segmenter, toy_selection
from tests.worlds.readers import MemoryReader


def blobs(count: int, seed: int) -> MemoryReader:
    """Images whose classes follow from the brightness of the first channel."""
    images = [toy_image(seed + i, 64, 96) for i in range(count)]
    return MemoryReader([Sample(f"{seed}-{i}", x, (x[..., 0] // 86).astype(np.uint8)) for i, x in enumerate(images)])


@pytest.fixture(scope="module")
def examples() -> int8.QuantisationData:
    return int8.QuantisationData(blobs(6, 100), blobs(5, 200))


@pytest.fixture(scope="module")
def trained(examples: int8.QuantisationData) -> Segmenter:
    """The toy network after a few training steps: not perfect, but far better than chance."""
    import torch

    torch.set_num_threads(1)
    segmenter = toy_segmenter(0)
    network = segmenter.engine.module
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    x = np.stack([segmenter.spec.normalisation.apply(sample.image) for sample in examples.train.samples])
    y = torch.from_numpy(np.stack([sample.labels for sample in examples.train.samples])).long()
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(torch.from_numpy(x)), y).backward()
        optimizer.step()
    network.eval()
    return segmenter


@pytest.fixture(scope="module")
def graphs(trained: Segmenter, examples: int8.QuantisationData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_graph(trained, folder / "model.onnx")
    floating = Segmenter(trained.spec, GRAPH_ENGINES["onnxruntime"](folder / "model.onnx", 1))
    int8.quantise(folder / "model.onnx", int8.calibration_batches(floating, examples.train), folder / "model-int8.onnx")
    return folder


def iou(segmenter: Segmenter, reader: MemoryReader) -> float:
    """Compute macro IoU by sets of pixels."""
    predicted = np.concatenate([segmenter.predict(sample.image).class_ids.ravel() for sample in reader.samples])
    truth = np.concatenate([sample.labels.ravel() for sample in reader.samples])
    ratios = [((predicted == c) & (truth == c)).sum() / ((predicted == c) | (truth == c)).sum() for c in range(3)]
    return float(np.mean(ratios))


@pytest.mark.parametrize("engine", INT8_ENGINES)
def test_the_int8_graph_predicts_nearly_the_same(
    graphs: Path, trained: Segmenter, examples: int8.QuantisationData, engine: str
) -> None:
    quantised = Segmenter(trained.spec, INT8_ENGINES[engine](graphs / "model-int8.onnx", 1))
    assert iou(trained, examples.val) > 0.6, "the network has learned something, so the test can fail"
    assert abs(iou(quantised, examples.val) - iou(trained, examples.val)) < 0.02
    for height, width in ((64, 96), (70, 90), (150, 201)):  # any size, also in tiles
        image = toy_image(300, height, width)
        a, b = (s.predict(image, probabilities=True).probabilities for s in (trained, quantised))
        assert 1e-4 < np.abs(a - b).mean() < 0.03, "close, but not the float32 graph under another name"


def test_openvino_computes_what_the_graph_specifies(graphs: Path) -> None:
    """ONNX Runtime runs the same graph step by step, rounding in between: another implementation of the same arithmetic."""
    fast, plain = (
        make(graphs / "model-int8.onnx", 1) for make in (INT8_ENGINES["openvino-int8"], GRAPH_ENGINES["onnxruntime"])
    )
    rng = np.random.default_rng(0)
    for n, height, width in ((1, 8, 8), (2, 32, 64), (1, 100, 36), (1, 8, 8)):
        batch = rng.uniform(-0.5, 0.5, (n, 3, height, width)).astype(np.float32)
        expected = plain(batch)
        assert np.abs(fast(batch) - expected).mean() < 0.02 * np.abs(expected).mean()


def test_an_engine_caches_few_shapes(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Int8Engine, "_MAX_SHAPES", 2)
    engine = Int8Engine(graphs / "model-int8.onnx", "x", 1)
    batches = [np.full((1, 3, 8, 8 * (i + 1)), 0.1, np.float32) for i in range(3)]
    first = [engine(batch) for batch in batches]
    assert [shape[-1] for shape in engine._compiled] == [16, 24]
    assert all((engine(batch) == before).all() for batch, before in zip(batches, first, strict=True))
    assert [shape[-1] for shape in engine._compiled] == [16, 24]


@pytest.mark.slow
def test_a_unets_concatenations_survive_openvino(tmp_path: Path) -> None:
    """Compiled for free sizes, this network gave wrong outputs (correlation 0.75)."""
    from segpipe.inference.engines.engine import TorchEngine
    from segpipe.inference.engines.graph_export import export_graph
    from segpipe.models.registry import build_network, get_family

    config = get_family("unet").config.model_validate({"encoder": "tf_efficientnet_lite0", "encoder_weights": "none"})
    spec = toy_segmenter().spec.model_copy(update={"stride": 32, "tile": 128, "overlap": 64})
    network = Segmenter(spec, TorchEngine(build_network("unet", config, 3, 3, seed=1).eval()))
    export_graph(network, tmp_path / "model.onnx")
    int8.quantise(
        tmp_path / "model.onnx", int8.calibration_batches(network, blobs(4, 100)), tmp_path / "quantised.onnx"
    )
    batch = spec.normalisation.apply(toy_image(5, 64, 96))[None]
    expected = GRAPH_ENGINES["onnxruntime"](tmp_path / "quantised.onnx", 1)(batch)
    output = INT8_ENGINES["openvino-int8"](tmp_path / "quantised.onnx", 1)(batch)
    assert np.corrcoef(expected.ravel(), output.ravel())[0, 1] > 0.99


def test_weights_and_activations_are_eight_bits_wide(graphs: Path) -> None:
    import onnx

    graph = onnx.load(graphs / "model-int8.onnx").graph
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    kernels = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(kernels) == 3, "the kernels of every convolution"
    channel_scales = [t for t in graph.initializer if t.name in scales and t.dims == [16]]
    assert channel_scales, "a scale for each output channel"
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) >= 3


def test_calibration_batches_are_prepared_as_by_predict(trained: Segmenter, examples: int8.QuantisationData) -> None:
    batches = list(int8.calibration_batches(trained, examples.train))
    expected = [trained.spec.normalisation.apply(sample.image)[None] for sample in examples.train.samples]
    assert len(batches) == len(expected) and all((a == b).all() for a, b in zip(batches, expected, strict=True))
    large = MemoryReader([Sample("large", toy_image(0, 150, 201), np.zeros((150, 201), np.uint8))])
    assert {batch.shape for batch in int8.calibration_batches(trained, large)} == {(1, 3, 96, 96)}, "in tiles"


def test_evenly_spaced_indices() -> None:
    assert (
        int8.evenly_spaced(5, 9) == [0, 1, 2, 3, 4]
        and int8.evenly_spaced(101, 3) == [0, 50, 100]
        and int8.evenly_spaced(1, 3) == [0]
    )


@pytest.mark.parametrize(("max_drop", "accepted"), [(0.1, True), (0.01, False)])
def test_int8_is_judged_by_the_drop_of_the_score(max_drop: float, accepted: bool) -> None:
    """Two classes of equal size; float32 is perfect, int8 predicts a for a tenth of b: IoU 1 -> mean(50/55, 45/50)."""
    truth = np.repeat([0, 1], 50).astype(np.uint8)
    after = truth.copy()
    after[50:55] = 0
    counts = [tallies(confusion(truth, predicted, 2)) for predicted in (truth, after)]
    trial = int8.judge_int8("x-int8", 0.95, *counts, ["a", "b"], 7, max_drop)
    assert trial.val_iou == pytest.approx((1, (50 / 55 + 45 / 50) / 2))
    assert trial.val_dice == pytest.approx((1, (100 / 105 + 90 / 95) / 2))
    assert (trial.worst_class, trial.worst_iou[1]) == ("b", pytest.approx(0.9))
    assert trial.eligible is accepted
    assert (
        "changes val IoU 1.0000 -> 0.9045" in trial.reason and "7 images" in trial.reason and "class b" in trial.reason
    )
    assert ("a drop of 0.0955, but `export.int8_max_drop` allows 0.01" in trial.reason) is not accepted


def test_a_gain_is_accepted_and_undefined_scores_are_not() -> None:
    truth = np.repeat([0, 1], 50).astype(np.uint8)
    worse = np.zeros(100, np.uint8)
    better = int8.judge_int8(
        "x", 1.0, *(tallies(confusion(truth, s, 2)) for s in (worse, truth)), ["a", "b"], 1, max_drop=0.0
    )
    assert better.eligible
    nothing = tallies(np.zeros((2, 2), np.int64))
    assert not int8.judge_int8("x", 1.0, nothing, nothing, ["a", "b"], 1, 0.5).eligible


def times(**milliseconds: float):
    """Return fixed timings instead of measured ones: every engine takes 10 ms unless it is named."""
    return lambda running, *_: {name: milliseconds.get(name.replace("-", "_"), 10.0) for name in running}


def export(trained: Segmenter, examples: int8.QuantisationData, out: Path, **params) -> Path:
    settings = ExportParams(golden=2, min_agreement=0.9, **params)
    write_bundle(trained, "ab" * 32, toy_reader(3), toy_selection(), settings, out, examples)
    return out


def test_int8_is_shipped_if_it_is_faster_and_accepted(
    trained: Segmenter, examples: int8.QuantisationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.release.export.engine_selection.median_ms", times(openvino_int8=4.0))
    out = export(trained, examples, tmp_path / "bundle", int8="auto", int8_max_drop=0.05)
    served = Segmenter.from_bundle(out)
    assert served.spec.engine == served.engine.name == Card.read(out).engine == "openvino-int8"
    assert replay_golden(served, out).identical
    words = Card.read(out).int8
    assert words is not None and "2.50 times as fast as" in words and words.endswith("it serves")
    assert f"Int8 {words[5:]}" in (page := (out / "README.md").read_text()) and "network in float32" in page
    trial = json.loads((out / "engines.json").read_text())[-1]
    assert (
        trial["eligible"]
        and trial["val_images"] == 5
        and trial["val_iou"][0] == pytest.approx(iou(trained, examples.val), abs=0.01)
    )
    floating = Segmenter.from_bundle(out, engine="onnxruntime")
    image = toy_image(9)
    a, b = (s.predict(image, probabilities=True).probabilities for s in (floating, served))
    assert np.abs(a - b).mean() > 1e-4, "the bundle also has the float32 graph"
    before = model_sha256(out), bundle_sha256(out)
    (out / "model-int8.onnx").write_bytes((out / "model.onnx").read_bytes())
    assert model_sha256(out) == before[0] and bundle_sha256(out) != before[1], "the model is the network in float32"


def test_int8_is_not_shipped_if_it_is_not_faster_or_costs_too_much(
    trained: Segmenter, examples: int8.QuantisationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.release.export.engine_selection.median_ms", times(openvino_int8=9.9))
    slow = export(trained, examples, tmp_path / "slow", int8="auto", int8_max_drop=0.05)
    monkeypatch.setattr("segpipe.release.export.engine_selection.median_ms", times(openvino_int8=1.0))
    noisy = int8.QuantisationData(examples.train, blobs(3, 0))
    real = int8.INT8_ENGINES["openvino-int8"]

    def wrong(path: Path, threads: int):
        engine = real(path, threads)
        return type("Wrong", (), {"name": "wrong", "__call__": lambda self, batch: engine(batch)[:, ::-1]})()

    for name in INT8_ENGINES:
        monkeypatch.setitem(int8.INT8_ENGINES, name, wrong)
    bad = export(trained, noisy, tmp_path / "bad", int8="auto")
    for out, words in ((slow, "1.01 times as fast"), (bad, "`export.int8_max_drop` allows 0.01")):
        card = Card.read(out)
        assert not (out / "model-int8.onnx").exists() and card.engine not in INT8_ENGINES
        assert (
            card.int8 is not None
            and words in card.int8
            and card.int8.endswith(f"it does not serve, {card.engine} does")
        )
        assert Segmenter.from_bundle(out).spec.engine == card.engine


def test_int8_is_not_tried_unless_asked_for(
    trained: Segmenter, examples: int8.QuantisationData, tmp_path: Path
) -> None:
    out = export(trained, examples, tmp_path / "bundle")
    assert Card.read(out).int8 is None and "int8" not in (out / "README.md").read_text()
    assert [t["engine"] for t in json.loads((out / "engines.json").read_text())] == list(GRAPH_ENGINES)


def test_the_card_has_the_reason_if_a_graph_cannot_be_quantised(
    trained: Segmenter, examples: int8.QuantisationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_) -> None:
        raise ValueError("no such operator in 8 bits")

    monkeypatch.setattr(int8, "quantise", fail)
    out = export(trained, examples, tmp_path / "bundle", int8="auto")
    words = Card.read(out).int8
    assert words is not None and "does not run here: no such operator in 8 bits; it does not serve" in words


def test_the_same_examples_give_the_same_graph(
    graphs: Path, trained: Segmenter, examples: int8.QuantisationData, tmp_path: Path
) -> None:
    floating = Segmenter(trained.spec, GRAPH_ENGINES["onnxruntime"](graphs / "model.onnx", 1))
    int8.quantise(graphs / "model.onnx", int8.calibration_batches(floating, examples.train), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (graphs / "model-int8.onnx").read_bytes()


def test_the_result_is_described_in_a_sentence() -> None:
    def trial(engine: str, ms: float | None, eligible: bool = True) -> EngineTrial:
        return EngineTrial(engine=engine, median_ms=ms, agreement=1.0, eligible=eligible, reason="so")

    floating, quantised = [trial("onnxruntime", 9.0), trial("openvino", 6.0, False)], trial("openvino-int8", 4.5)
    assert (
        int8.describe_int8([*floating, quantised], quantised)
        == "int8 (openvino-int8) so; it is 2.00 times as fast as onnxruntime; it serves"
    )
    failed = trial("openvino-int8", None, False)
    assert (
        int8.describe_int8([*floating, failed], floating[0])
        == "int8 (openvino-int8) so; it does not serve, onnxruntime does"
    )
