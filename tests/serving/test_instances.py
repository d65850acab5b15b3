"""The server lists objects, where its model tells them apart."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as codes
from starlette.testclient import TestClient

from segpipe.config import ExportParams
from segpipe.data.images import decode_image, encode_png
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.segmenter import Segmenter
from segpipe.release.export.bundle_export import write_bundle
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings
from tests.worlds.bundles import toy_image, toy_reader, toy_segmenter, toy_selection

IMAGE = toy_image(3, 50, 64)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    plain, bundle = toy_segmenter(0), tmp_path_factory.mktemp("objects") / "bundle"
    spec = plain.spec.model_copy(update={"postprocess": Postprocess(method="components", min_size=4)})
    write_bundle(
        Segmenter(spec, plain.engine), "00" * 32, toy_reader(), toy_selection(), ExportParams(golden=1), bundle
    )
    app = create_app()
    settings = Settings(endpoint=None, bundle=bundle, workers=1, max_upload_mb=1, max_megapixels=0.5)
    attach(app, ModelHolder(None, bundle), settings)
    return TestClient(app)


def test_json_lists_objects_whose_run_lengths_are_the_mask(client: TestClient) -> None:
    answer = client.post("/v1/segment?format=json", files={"image": ("x.png", encode_png(IMAGE))}).json()
    mask = decode_image(base64.b64decode(answer["mask"]["data"]), "mask", 1)[:, :, 0]
    names = [c["name"] for c in answer["classes"]]
    assert len(answer["objects"]) > 1
    painted = np.zeros_like(mask)
    for found in answer["objects"]:
        here = codes.decode(codes.frPyObjects(found["rle"], *found["rle"]["size"])).astype(bool)
        assert (mask[here] == names.index(found["name"])).all() and here.sum() == found["area"] >= 4
        assert 1 / 3 <= found["score"] <= 1
        painted[here] += 1
    assert painted.max() == 1 and (painted[mask == 0] == 0).all()


def test_a_model_that_tells_none_apart_lists_none(client: TestClient, bundle: Path) -> None:
    app = create_app()
    settings = Settings(endpoint=None, bundle=bundle, workers=1, max_upload_mb=1, max_megapixels=0.5)
    attach(app, ModelHolder(None, bundle), settings)
    answer = TestClient(app).post("/v1/segment?format=json", files={"image": ("x.png", encode_png(IMAGE))}).json()
    assert "objects" not in answer


def test_the_overlay_outlines_objects_and_the_mask_stays_as_it_is(client: TestClient) -> None:
    upload = {"files": {"image": ("x.png", encode_png(IMAGE))}}
    overlay = decode_image(client.post("/v1/segment?format=overlay&alpha=0", **upload).content, "overlay", 1)
    assert (overlay != IMAGE).any(), "outlines are drawn even where classes are not filled"
    mask = client.post("/v1/segment?format=mask", **upload)
    assert mask.headers["content-type"] == "image/png" and len(mask.content) > 0
