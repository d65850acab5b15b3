"""Ensembles: the average of their members, on all engines; and predictions of training images by the member that has not seen them."""

import numpy as np
import pytest
import torch

from segpipe.inference.cleaning import Cleaning
from segpipe.inference.engines.engine import GRAPH_ENGINES, TorchEngine
from segpipe.inference.engines.ensemble import Ensemble
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.out_of_fold import OutOfFoldSegmenter
from segpipe.inference.outputs import Outputs, OverlappingOutputs
from segpipe.inference.segmenter import Segmenter
from segpipe.samples import Sample
from tests.worlds.bundles import toy_image, toy_network, toy_segmenter


def ensemble(count=3, exclusive=3, n_classes=3):
    return Ensemble([toy_network(seed, n_classes=n_classes) for seed in range(count)], exclusive).eval()


def batch_of(*seeds):
    return np.stack([toy_image(seed, 64, 96).transpose(2, 0, 1) for seed in seeds]).astype(np.float32) / 255 - 0.5


def softmax_64(x):
    """Softmax in float64."""
    e = np.exp(x.astype(np.float64))
    return e / e.sum(1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize(
    ("outputs", "exclusive"),
    [(Outputs(3), 3), (Outputs(3, distance=True), 3), (OverlappingOutputs(3), 0), (OverlappingOutputs(3, True), 0)],
    ids=["classes", "classes and depth", "sets", "sets and depth"],
)
def test_an_ensemble_returns_the_mean_of_its_members(outputs, exclusive):
    network, batch = ensemble(3, exclusive, outputs.channels), 40 * batch_of(0, 1)
    with torch.inference_mode():
        parts = [member(torch.from_numpy(batch)).numpy() for member in network.members]
        values = outputs.values(network(torch.from_numpy(batch)).numpy())
    member_values = [
        np.concatenate([softmax_64(p[:, :exclusive]), sigmoid(p[:, exclusive:])], 1) if exclusive else sigmoid(p)
        for p in parts
    ]
    assert np.abs(member_values[0] - member_values[1]).max() > 0.1, "members differ"
    np.testing.assert_allclose(values, np.mean(member_values, 0), atol=2e-6)


def test_certain_members_that_disagree_do_not_overflow():
    class Certain(torch.nn.Module):
        def __init__(self, label):
            super().__init__()
            self.label = label

        def forward(self, x):
            scores = torch.full((len(x), 3, *x.shape[2:]), -400.0)
            scores[:, self.label] = 400.0
            return scores

    network = Ensemble([Certain(0), Certain(0), Certain(2)], 3)
    values = Outputs(3).values(network(torch.zeros(1, 1, 2, 2)).numpy())
    np.testing.assert_allclose(values[0, :, 0, 0], [2 / 3, 0, 1 / 3], atol=1e-6)


def make_segmenter(network=None):
    return Segmenter(toy_segmenter().spec.model_copy(update={"members": 3}), TorchEngine(network or ensemble()))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_graph_holds_all_members(tmp_path, engine):
    trained = make_segmenter()
    export_graph(trained, tmp_path / "model.onnx")
    run = GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1)
    for batch in (batch_of(0), batch_of(1, 2)[:, :, :32]):
        np.testing.assert_allclose(run(batch), trained.engine(batch), atol=1e-4, rtol=1e-3)


def make_out_of_fold(**changes):
    network = ensemble()
    members = [TorchEngine(member) for member in network.members]
    segmenter = OutOfFoldSegmenter(make_segmenter(network).spec, TorchEngine(network), members, {"a": 0, "b": 2})
    return segmenter.with_changes(**changes) if changes else segmenter


def test_a_sample_is_predicted_by_the_member_that_was_not_trained_on_it():
    segmenter, image = make_out_of_fold(), toy_image(9)
    values = [segmenter.segment(Sample(key, image, None), probabilities=True).probabilities for key in "abc"]
    members = [toy_segmenter(seed).predict(image, probabilities=True).probabilities for seed in range(3)]
    assert np.array_equal(values[0], members[0])
    assert np.array_equal(values[1], members[2])
    np.testing.assert_allclose(values[2], np.mean(members, 0), atol=2e-6)
    assert np.array_equal(values[2], segmenter.predict(image, probabilities=True).probabilities)


def test_other_settings_reach_the_members():
    image, plain = toy_image(9), make_out_of_fold()
    changed = make_out_of_fold(temperature=3.0, cleaning=Cleaning(least=(0, 4000, 0)))
    before, after = (model.segment(Sample("a", image, None), probabilities=True) for model in (plain, changed))
    member = toy_segmenter(0).at_temperature(3.0).predict(image, probabilities=True)
    np.testing.assert_allclose(after.probabilities, member.probabilities, atol=1e-6)
    assert (before.class_ids == 1).any() and not (after.class_ids == 1).any()
    assert changed.fold_of == plain.fold_of
