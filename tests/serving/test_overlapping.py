"""The endpoint of a model whose classes overlap."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from segpipe.data.images import decode_image, encode_png
from segpipe.inference.segmenter import Segmenter
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings
from tests.worlds.bundles import toy_image

IMAGE = toy_image(3, 50, 64)


@pytest.fixture(scope="module")
def overlapping(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlapping") / "bundle"
    shutil.copytree(bundle, folder)
    spec = json.loads((folder / "segmenter.json").read_text())
    for entry, value in zip(spec["classes"]["classes"], (0, 1, 4), strict=True):
        entry["value"] = value
    spec["classes"]["overlapping"] = True
    (folder / "segmenter.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture(scope="module")
def client(overlapping: Path) -> TestClient:
    app = create_app()
    attach(
        app,
        ModelHolder(None, overlapping),
        Settings(endpoint=None, bundle=overlapping, workers=1, max_upload_mb=1.0, max_megapixels=0.5),
    )
    return TestClient(app)


def post(client: TestClient, query: str):
    answer = client.post(f"/v1/segment?{query}", files={"image": ("x.png", encode_png(IMAGE))})
    assert answer.status_code == 200
    return answer


def test_an_answer_tells_each_class_and_their_sets(client: TestClient, overlapping: Path) -> None:
    segmenter = Segmenter.from_bundle(overlapping)
    sets, labelling = segmenter.predict(IMAGE).class_ids, segmenter.spec.classes.labelling
    told = post(client, "format=json").json()
    assert told["overlapping"] is True
    assert [c["pixels"] for c in told["classes"]] == [int(labelling.where(sets, k).sum()) for k in range(3)]
    mask = decode_image(base64.b64decode(told["mask"]["data"]), "mask", 1)[:, :, 0]
    np.testing.assert_array_equal(mask, sets)
    assert 3 in sets, "some pixels have both classes"
    stored = decode_image(post(client, "format=mask").content, "mask", 1)[:, :, 0]
    np.testing.assert_array_equal(stored, np.array([0, 1, 4, 5])[sets])
