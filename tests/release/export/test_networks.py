"""Networks that segpipe trains, out of a model folder as training leaves it, through ONNX, against torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import ExportParams
from segpipe.files import sha256_file
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bundle import Card, replay_golden
from segpipe.release.export.bundle_export import export_bundle
from tests.worlds.bundles import toy_image, toy_reader, toy_segmenter, toy_selection

pytestmark = pytest.mark.slow


def write_model(folder: Path, name: str) -> SegmenterSpec:
    """A network with random weights, written as the train stage writes one."""
    from safetensors.torch import save_file

    from segpipe.models.registry import build_network, get_family

    options = {"encoder": "tf_efficientnet_lite0", "encoder_weights": "none"}
    config = get_family(name).config.model_validate(options)
    network = build_network(name, config, 3, 3, seed=1).eval()
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    spec = toy_segmenter().spec.model_copy(
        update={"family": name, "options": options, "stride": 32, "tile": 128, "overlap": 64}
    )
    spec.write(folder)
    return spec


@pytest.mark.parametrize("family", ["unet", "deeplabv3plus"])
def test_a_bundle_gives_the_networks_masks(tmp_path: Path, family: str) -> None:
    from segpipe.inference.trained_model import load_trained

    model, out = tmp_path / "models" / "unet", tmp_path / "bundle"
    write_model(model, family)
    params = ExportParams(
        golden=2, min_agreement=0.98
    )  # random weights leave many pixels undecided between two classes
    export_bundle(model, toy_reader(4, height=96), toy_selection(), params, out)
    assert Card.read(out).weights_sha256 == sha256_file(model / "weights.safetensors")
    assert replay_golden(Segmenter.from_bundle(out), out).identical
    trials = {t["engine"]: t for t in json.loads((out / "engines.json").read_text())}
    assert trials["onnxruntime"]["agreement"] > 0.999 and trials["openvino"]["agreement"] > 0.999
    trained, exported = load_trained(model), Segmenter.from_bundle(out, engine="onnxruntime")
    for size in ((64, 96), (70, 90), (200, 150)):
        image = toy_image(7, *size)
        a = trained.predict(image, probabilities=True)
        b = exported.predict(image, probabilities=True)
        assert a.probabilities is not None and b.probabilities is not None
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-3)
