"""Tests of the HTTP API, in process: correct answers, and a reason for every bad request."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from segpipe.data.images import decode_image, encode_png
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import golden_pairs
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import UNRELEASED, ModelHolder
from segpipe.serving.settings import Settings
from tests.worlds.bundles import CLASSES, toy_image

LIMIT_MB = 1.0


@pytest.fixture(scope="module")
def client(bundle: Path) -> TestClient:
    app = create_app()
    settings = Settings(endpoint=None, bundle=bundle, workers=1, max_upload_mb=LIMIT_MB, max_megapixels=0.5)
    attach(app, ModelHolder(None, bundle), settings)
    return TestClient(app, raise_server_exceptions=False)


IMAGE = toy_image(3, 50, 64)
PNG = encode_png(IMAGE)


def upload(content: bytes = PNG, name: str = "x.png", field: str = "image") -> dict:
    return {"files": {field: (name, content)}}


def header_bomb() -> bytes:
    """Return a PNG of a few bytes whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_a_mask_has_the_values_of_mask_files(client: TestClient, bundle: Path) -> None:
    answer = client.post("/v1/segment", **upload())
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model-version"] == UNRELEASED and float(answer.headers["x-latency-ms"]) > 0
    mask = decode_image(answer.content, "mask", 1)[:, :, 0]
    assert set(np.unique(mask)) <= {c.value for c in CLASSES.classes}
    expected = Segmenter.from_bundle(bundle).predict(IMAGE).class_ids
    np.testing.assert_array_equal(CLASSES.encode(mask), expected)
    assert len(np.unique(expected)) == 3


def test_a_mask_is_the_same_file_that_predict_writes(client: TestClient, bundle: Path, tmp_path: Path) -> None:
    from segpipe.config import DataParams
    from segpipe.inference.files.batch import predict_files

    (tmp_path / "x.png").write_bytes(PNG)
    rows = predict_files(Segmenter.from_bundle(bundle), [tmp_path / "x.png"], tmp_path / "out", DataParams())
    for kind in ("mask", "overlay"):
        answer = client.post(f"/v1/segment?format={kind}", **upload())
        assert answer.content == (tmp_path / "out" / rows[0][kind]).read_bytes(), kind


def test_an_image_may_be_the_body(client: TestClient) -> None:
    raw = client.post("/v1/segment", content=PNG, headers={"content-type": "image/png"})
    assert raw.status_code == 200 and raw.content == client.post("/v1/segment", **upload()).content


def test_json_names_classes_and_shares(client: TestClient, bundle: Path) -> None:
    answer = client.post("/v1/segment", **upload(), headers={"accept": "application/json"}).json()
    ids = decode_image(base64.b64decode(answer["mask"]["data"]), "mask", 1)[:, :, 0]
    expected = Segmenter.from_bundle(bundle).predict(IMAGE).class_ids
    np.testing.assert_array_equal(ids, expected)
    assert (answer["width"], answer["height"]) == (64, 50) and "preview" not in answer
    assert [c["name"] for c in answer["classes"]] == CLASSES.names and [c["value"] for c in answer["classes"]] == [
        0,
        128,
        255,
    ]
    assert [c["pixels"] for c in answer["classes"]] == [int((expected == i).sum()) for i in range(3)]
    assert sum(c["share"] for c in answer["classes"]) == pytest.approx(1)
    preview = client.post("/v1/segment?format=json&preview=true", **upload()).json()["preview"]["data"]
    np.testing.assert_array_equal(decode_image(base64.b64decode(preview), "preview", 1), IMAGE)


def test_the_opacity_of_an_overlay(client: TestClient, bundle: Path) -> None:
    overlays = [
        decode_image(client.post(f"/v1/segment?format=overlay&alpha={alpha}", **upload()).content, "o", 1).astype(int)
        for alpha in (0.0, 1.0)
    ]
    ids = Segmenter.from_bundle(bundle).predict(IMAGE).class_ids
    nucleus = ids == 2
    assert (overlays[1][nucleus] == CLASSES.colors[2]).all()
    assert (overlays[0][nucleus] != CLASSES.colors[2]).any()
    np.testing.assert_array_equal(
        overlays[1][1:-1, 1:-1][(ids == 0)[1:-1, 1:-1]], IMAGE[1:-1, 1:-1][(ids == 0)[1:-1, 1:-1]]
    )


BAD = [
    ("a text file", upload(b"these are words", "notes.txt"), 422, "not an image"),
    ("a text file with an image's name", upload(b"these are words", "x.png"), 422, "not an image"),
    ("a truncated PNG", upload(PNG[: len(PNG) // 2]), 422, "decoded"),
    ("an empty file", upload(b""), 422, "empty"),
    ("a header bomb", upload(header_bomb()), 422, "30000 x 30000"),
    ("one pixel row too many", upload(encode_png(np.zeros((1001, 500), np.uint8))), 422, "0.5 megapixels"),
    ("too many bytes", upload(b"\0" * (2 << 20)), 413, "at most 1 MB"),
    ("no such field", upload(field="picture"), 400, "field `image`"),
    ("a field that is not a file", {"data": {"image": "text"}}, 415, "multipart"),
    ("a text field in a form", {"files": {"image": (None, "text")}}, 400, "field `image`"),
    ("two files", {"files": [("image", ("a.png", PNG)), ("image", ("b.png", PNG))]}, 400, "form"),
    ("no body", {}, 415, "nothing"),
    ("JSON", {"json": {"image": "x"}}, 415, "application/json"),
    ("a form without a boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
    (
        "a broken form",
        {"content": b"--b\r\njunk", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "image",
    ),
    ("an unknown format", {**upload(), "params": {"format": "gif"}}, 422, "format"),
    ("an opacity above 1", {**upload(), "params": {"format": "overlay", "alpha": "7"}}, 422, "alpha"),
]


@pytest.mark.parametrize(("request_", "status", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_upload_is_answered_with_a_reason(client: TestClient, request_: dict, status: int, words: str) -> None:
    answer = client.post("/v1/segment", **request_)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert words in answer.json()["error"]
    assert client.post("/v1/segment", **upload()).status_code == 200, "and the next request is fine"


def test_bytes_are_counted_whatever_the_headers_claim(client: TestClient) -> None:
    def endless():  # chunked: no content-length
        for _ in range(4096):
            yield b"\0" * 1024

    answer = client.post("/v1/segment", content=endless(), headers={"content-type": "image/png"})
    assert answer.status_code == 413 and "at most 1 MB" in answer.json()["error"]


@pytest.mark.parametrize(
    "image",
    [toy_image(1, 40, 40, 1), toy_image(1, 9, 7), toy_image(1, 1, 1), toy_image(1, 130, 140)],
    ids=["grey", "smaller than the stride", "one pixel", "larger than a tile"],
)
def test_images_of_all_shapes(client: TestClient, image: np.ndarray) -> None:
    answer = client.post("/v1/segment", **upload(encode_png(image[:, :, 0] if image.shape[2] == 1 else image)))
    assert answer.status_code == 200
    assert decode_image(answer.content, "mask", 1).shape[:2] == image.shape[:2]


def test_an_image_with_the_wrong_number_of_channels_is_refused(tmp_path: Path) -> None:
    from tests.worlds.bundles import write_toy_bundle

    bundle = write_toy_bundle(tmp_path / "grey", channels=1)
    app = create_app()
    attach(app, ModelHolder(None, bundle), Settings(None, bundle, 1, 1.0, 1.0))
    answer = TestClient(app).post("/v1/segment", **upload())
    assert answer.status_code == 422 and "channels" in answer.json()["error"]


def test_model_and_example(client: TestClient, bundle: Path) -> None:
    info = client.get("/v1/model").json()
    assert info["scores"]["iou.dataset.macro"] == {"value": 0.71, "low": 0.68, "high": 0.74}
    assert info["gates"][0]["verdict"] == "pass" and info["data_hash"] == "da7a" * 16 and info["git_commit"] is None
    assert [c["name"] for c in info["classes"]] == CLASSES.names
    assert info["limits"] == {"max_upload_mb": LIMIT_MB, "max_megapixels": 0.5}
    assert info["example"] is True and info["pending"] is None
    assert client.get("/v1/example").content == golden_pairs(bundle)[0].input.read_bytes()


def test_private_test_images_are_not_shown(bundle: Path) -> None:
    app = create_app()
    attach(
        app,
        ModelHolder(None, bundle),
        Settings.from_environment({"SEGPIPE_BUNDLE": str(bundle), "SEGPIPE_EXAMPLE": "false"}),
    )
    client = TestClient(app)
    answer = client.get("/v1/example")
    assert answer.status_code == 404 and "serve.example" in answer.json()["error"]
    assert client.get("/v1/model").json()["example"] is False


def test_the_page_loads_nothing_from_other_hosts(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    texts = [page.text, *(client.get(f"/page/{name}").text for name in ("app.js", "style.css", "icon.svg"))]
    assert all(len(text) > 100 for text in texts)
    assert not any(
        f"{scheme}://" in text.replace("http://www.w3.org/2000/svg", "")
        for text in texts
        for scheme in ("http", "https")
    )


def test_a_bug_is_answered_with_500_and_a_reason(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.serving.api.mask_png", lambda *_: 1 / 0)
    answer = client.post("/v1/segment", **upload())
    assert answer.status_code == 500 and "log" in answer.json()["error"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_answers_fit_turned_images_as_viewers_show_them(client: TestClient, kind: str, orientation: int) -> None:
    from PIL import Image, ImageOps

    stored, upright = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(toy_image(4, 40, 60))
    image.save(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    ImageOps.exif_transpose(Image.open(io.BytesIO(stored.getvalue()))).save(upright, "PNG")
    answer, expected = (
        client.post("/v1/segment?format=json", **upload(content, "image")).json()
        for content in (stored.getvalue(), upright.getvalue())
    )
    assert (answer["width"], answer["height"]) == ((40, 60) if orientation >= 5 else (60, 40))
    if kind != "JPEG":  # whose decoders round differently
        assert answer["mask"] == expected["mask"]


def test_settings_from_the_environment(tmp_path: Path) -> None:
    from segpipe.errors import SegpipeError

    settings = Settings.from_environment(
        {"SEGPIPE_BUNDLE": str(tmp_path), "SEGPIPE_WORKERS": "2", "SEGPIPE_MAX_UPLOAD_MB": "7.5"}
    )
    assert (settings.endpoint, settings.bundle, settings.workers, settings.max_upload_mb) == (None, tmp_path, 2, 7.5)
    assert settings.engine_threads >= 1 and Settings.from_environment({}).engine_threads == 0
    assert Settings.from_environment({}).bundle.name == "bundle"
    with pytest.raises(SegpipeError, match="SEGPIPE_WORKERS"):
        Settings.from_environment({"SEGPIPE_WORKERS": "many"})


def test_openapi_knows_the_answer_of_the_model_route(client: TestClient) -> None:
    document = client.get("/v1/openapi.json").json()
    assert {"/v1/segment", "/v1/model", "/v1/example"} == set(document["paths"])
    answer = document["paths"]["/v1/model"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schemas = document["components"]["schemas"]
    schema = schemas[answer["$ref"].rpartition("/")[2]]
    assert schema["properties"].keys() == client.get("/v1/model").json().keys()
    always_there = {"version", "git_commit", "candidate", "family", "options", "engine", "classes", "lineage", "limits"}
    assert always_there | {"data_hash", "weights_sha256", "metric", "scores", "gates"} <= set(schema["required"])
    assert not {"int8", "promoted_at"} & set(schema["required"])
    assert all(field.get("description") or "$ref" in field for field in schema["properties"].values())
    assert schemas["Score"]["properties"].keys() == {"value", "low", "high"}
    assert schemas["Limits"]["properties"].keys() == {"max_upload_mb", "max_megapixels"}
