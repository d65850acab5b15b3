"""A trained network scored as an ONNX graph: equal to torch, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segpipe.inference.engines import checked_graph
from segpipe.inference.engines.checked_graph import CheckedGraphEngine, GraphMismatch, on_graph
from segpipe.inference.engines.engine import OnnxEngine, TorchEngine
from segpipe.inference.images_at_once import parallel_jobs
from segpipe.inference.out_of_fold import OutOfFoldSegmenter
from segpipe.inference.outputs import Outputs
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.samples import Sample
from tests.worlds.bundles import toy_detector, toy_image, toy_segmenter
from tests.worlds.segmenters import Pixelwise


class Shifted:
    """The scores of `Pixelwise`, with a constant added to the first class."""

    name = "shifted"

    def __init__(self, shift: float) -> None:
        self.shift, self.calls = shift, 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        logits = Pixelwise()(batch)
        logits[:, 0] += self.shift
        return logits


def batch(height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(height).random((1, 1, height, width), np.float32)


def test_probabilities_and_classes_are_those_of_torch(tmp_path: Path) -> None:
    trained = toy_segmenter()
    graph = on_graph(trained, tmp_path, threads=1)
    assert graph.engine.name == "onnxruntime"
    for seed, size in enumerate([(70, 90), (64, 64), (200, 130)]):  # one tile, one tile without padding, several tiles
        expected, actual = (model.predict(toy_image(seed, *size), probabilities=True) for model in (trained, graph))
        assert (actual.class_ids != expected.class_ids).mean() <= 1e-4
        np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-5)


def test_the_number_of_threads_does_not_change_the_result(tmp_path: Path) -> None:
    one, two = (on_graph(toy_segmenter(), tmp_path, threads, check=False) for threads in (1, 2))
    for seed in range(4):
        image = toy_image(seed)
        np.testing.assert_array_equal(
            one.predict(image, probabilities=True).probabilities, two.predict(image, probabilities=True).probabilities
        )


def test_torch_runs_at_the_first_calls_and_for_new_shapes_only() -> None:
    reference = Shifted(0)
    engine = CheckedGraphEngine(Shifted(0), reference, Outputs(3))
    for _ in range(10):
        engine(batch())
    assert reference.calls == 3
    for size in (32, 48, 48, 80, 96, 112, 128, 144, 160):
        engine(batch(size))
    assert reference.calls == 3 + 5, "six shapes are checked, with the first one"


@pytest.mark.parametrize("shift", [1e-2, float("nan")])
def test_other_probabilities_are_refused(shift: float) -> None:
    with pytest.raises(GraphMismatch, match="other probabilities than torch"):
        CheckedGraphEngine(Shifted(shift), Shifted(0), Outputs(3))(batch())


def test_other_classes_are_refused_even_if_probabilities_are_close() -> None:
    """Half of the pixels are ties that a shift decides, which changes probabilities by less than the tolerance."""

    class Tied(Shifted):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            logits = np.zeros((1, 2, *batch.shape[2:]), np.float32)
            logits[:, 1] += self.shift
            logits[:, 0, :, ::2] = 1
            return logits

    CheckedGraphEngine(Tied(1e-4), Tied(2e-4), Outputs(2))(batch())
    with pytest.raises(GraphMismatch, match=r"other classes than torch \(found 2,048 of 4,096 pixels"):
        CheckedGraphEngine(Tied(1e-4), Tied(-1e-4), Outputs(2))(batch())


def test_a_single_tie_in_a_small_image_is_accepted() -> None:
    class OneTie(Shifted):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            logits = np.zeros((1, 2, *batch.shape[2:]), np.float32)
            logits[:, 0] = 1
            logits[0, :, 0, 0] = 0, self.shift
            return logits

    logits = CheckedGraphEngine(OneTie(1e-5), OneTie(-1e-5), Outputs(2))(batch())
    assert logits[0, 1, 0, 0] == np.float32(1e-5), "that of the graph, whose class differs from the one of torch"


def test_a_network_that_is_traced_wrongly_for_other_sizes_is_refused(tmp_path: Path) -> None:
    class Baked(torch.nn.Module):
        """Divides by the size of the image, which the trace keeps as the constant of the example."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :2].abs(), x[:, :1] * int(x.shape[2])], 1)

    segmenter = on_graph(Segmenter(toy_segmenter().spec, TorchEngine(Baked())), tmp_path, threads=1)
    segmenter.engine(np.ones((1, 3, 8, 8), np.float32))  # the size of the example
    with pytest.raises(GraphMismatch, match="other probabilities"):
        segmenter.engine(np.ones((1, 3, 16, 16), np.float32))


def test_a_network_without_a_graph_is_refused(tmp_path: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigh(x @ x.transpose(-1, -2)).eigenvectors

    with pytest.raises(GraphMismatch, match="has no ONNX graph"):
        on_graph(Segmenter(toy_segmenter().spec, TorchEngine(Untraceable())), tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_models_that_are_not_networks_stay_as_they_are(tmp_path: Path) -> None:
    for model in (toy_detector(), Segmenter(toy_segmenter().spec, Pixelwise())):
        assert on_graph(model, tmp_path) is model


def test_volumes_are_scored_on_openvino_one_at_a_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 3, 3, padding=1)
    plain = {"low": (0.0,), "high": (255.0,), "mean": (0.5,), "std": (1.0,)}
    spec = toy_segmenter().spec.model_copy(
        update={"dims": 3, "patch3d": (8, 16, 16), "stride": 1, "normalisation": Normalisation.model_validate(plain)}
    )
    trained = Segmenter(spec, TorchEngine(torch.nn.Sequential(*layers).eval()))
    graph = on_graph(trained, tmp_path)
    assert graph.engine.name == "openvino" and parallel_jobs(graph, cores=8) == 1
    volume = toy_image(0, 20, 24, 10).transpose(2, 0, 1)
    actual, expected = (model.predict(volume, probabilities=True) for model in (graph, trained))
    assert (actual.class_ids != expected.class_ids).mean() <= 1e-4
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=1e-5)


def test_an_ensemble_has_a_graph_of_each_member(tmp_path: Path) -> None:
    whole, members = toy_segmenter(0), [toy_segmenter(seed) for seed in (1, 2)]
    ensemble = OutOfFoldSegmenter(whole.spec, whole.engine, [m.engine for m in members], {"a": 0, "b": 1})
    graph = on_graph(ensemble, tmp_path, threads=1)
    image = toy_image(5)
    for key in ("a", "b", "new"):
        sample = Sample(key, image)
        actual, expected = (m.segment(sample, probabilities=True).probabilities for m in (graph, ensemble))
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert len(list(tmp_path.glob("*.onnx"))) == 3


def test_a_graph_is_exported_once_for_several_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []
    original = checked_graph.export_graph
    monkeypatch.setattr(checked_graph, "export_graph", lambda *args: (exported.append(args), original(*args)))
    first, second = on_graph(toy_segmenter(), tmp_path, 1), on_graph(toy_segmenter(), tmp_path, 0, check=False)
    assert len(exported) == 1
    assert isinstance(first.engine, CheckedGraphEngine) and isinstance(second.engine, OnnxEngine)
