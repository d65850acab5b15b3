"""A model answers images like its training images, exact conversions of them, and refuses everything else with status 422."""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
from starlette.testclient import TestClient

from segpipe.config import DataParams, ExportParams
from segpipe.data.images import decode_image, encode_nifti, encode_png, encode_tiff
from segpipe.errors import DataError
from segpipe.inference.files.inputs import decode_input
from segpipe.inference.input_contract.spec import InputSpec
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bundle import golden_pairs, replay_golden
from segpipe.release.export.bundle_export import write_bundle
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings
from tests.data.images.test_geometry import ALL_ORDERS, VOXELS, in_order
from tests.worlds.bundles import CLASSES, toy_image, toy_reader, toy_segmenter, toy_selection

LIMITS = DataParams()


def bytes_spec(channels: int, **changes: object) -> InputSpec:
    numbers = {"minimum": (0,) * channels, "maximum": (255,) * channels, "spread": (200,) * channels}
    return InputSpec.model_validate({"dtype": "uint8", "whole_numbers": True, **numbers, **changes})


def serve(folder: Path, channels: int, spec: InputSpec | None) -> TestClient:
    trained = toy_segmenter(0, channels)
    trained = Segmenter(trained.spec.model_copy(update={"input": spec}), trained.engine)
    write_bundle(trained, "f" * 64, toy_reader(6, channels), toy_selection(True), ExportParams(golden=2), folder)
    assert SegmenterSpec.read(folder).input == spec
    app = create_app()
    settings = Settings(endpoint=None, bundle=folder, workers=1, max_upload_mb=1, max_megapixels=1)
    attach(app, ModelHolder(None, folder), settings)
    return TestClient(app, raise_server_exceptions=False)


def ask(client: TestClient, content: bytes, **query: object):
    return client.post("/v1/segment", params=query, files={"image": ("upload", content)})


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return serve(tmp_path_factory.mktemp("colour") / "bundle", 3, bytes_spec(3))


def test_one_image_in_other_number_types_has_one_answer(colour: TestClient) -> None:
    image = toy_image(3, 50, 60)
    expected = ask(colour, encode_png(image))
    assert expected.status_code == 200 and "X-Notes" not in expected.headers
    for content, note in (
        (encode_png(image.astype(np.uint16) * 257), "16-bit values divided by 257"),
        (encode_tiff(image.astype(np.float32) / 255), "values from 0 to 1 multiplied by 255"),
        (npy(image.astype(np.float64)), "whole numbers stored as 8 bits"),
    ):
        answer = ask(colour, content)
        assert answer.content == expected.content
        assert note in answer.headers["X-Notes"]


def test_names_from_a_file_cannot_break_the_header_of_notes(colour: TestClient) -> None:
    image, stream = toy_image(3, 50, 60), io.BytesIO()
    np.savez(stream, **{"a\r\nX-Evil: 1, é": image})
    answer = ask(colour, stream.getvalue())
    assert answer.status_code == 200 and "X-Evil" not in answer.headers
    assert answer.headers["X-Notes"] == "array a??X-Evil: 1, ? of 1"


def test_other_scales_are_refused_with_both_sides(colour: TestClient) -> None:
    image = toy_image(3, 50, 60)
    answer = ask(colour, encode_png(image.astype(np.uint16)))
    assert answer.status_code == 422
    assert "found 16-bit numbers from" in answer.json()["error"]
    assert "expected 8-bit numbers from 0 to 255" in answer.json()["error"]


def test_alpha_is_dropped_only_where_the_file_says_so(colour: TestClient) -> None:
    image = toy_image(3, 50, 60)
    four = np.dstack([image, toy_image(4, 50, 60, 1)])
    expected = ask(colour, encode_png(image)).content
    png = cv2.imencode(".png", cv2.cvtColor(four, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    assert ask(colour, png).content == expected
    refused = ask(colour, encode_tiff(four))
    assert refused.status_code == 422 and "wrong number of channels (found 4, expected 3)" in refused.json()["error"]


def test_a_bundle_of_an_older_version_still_serves(tmp_path: Path) -> None:
    client = serve(tmp_path / "bundle", 3, None)
    assert '"input"' not in (tmp_path / "bundle/segmenter.json").read_text()
    assert ask(client, encode_png(toy_image(3, 50, 60).astype(np.uint16))).status_code == 200


@pytest.mark.parametrize("channels", [2, 4, 5, 9])
def test_any_number_of_channels_goes_all_the_way(channels: int, tmp_path: Path) -> None:
    names = tuple(f"c{k}" for k in range(channels))
    client = serve(tmp_path / "bundle", channels, bytes_spec(channels, channel_names=names))
    segmenter = Segmenter.from_bundle(tmp_path / "bundle")
    assert [pair.input.suffix for pair in golden_pairs(tmp_path / "bundle")] == [".tiff"] * 2
    assert replay_golden(segmenter, tmp_path / "bundle").identical
    image = toy_image(3, 50, 60, channels)
    expected = CLASSES.decode(segmenter.predict(image).class_ids)
    ome = io.BytesIO()
    swapped = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    metadata = {"axes": "CYX", "Channel": {"Name": list(names[::-1])}}
    tifffile.imwrite(ome, swapped, ome=True, photometric="minisblack", metadata=metadata)
    for content in (encode_tiff(image), npy(image), ome.getvalue()):
        answer = ask(client, content)
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(decode_image(answer.content, "x", 1)[..., 0], expected)
    shown = ask(client, npy(image), format="json", preview=True, channel=1).json()
    preview = decode_image(base64.b64decode(shown["preview"]["data"]), "p", 1)
    assert shown["channels"] == channels
    np.testing.assert_array_equal(preview, np.repeat(image[..., 1:2], 3, axis=2))
    assert ask(client, npy(image), format="overlay", channel=channels).status_code == 422


def volume_model(orientation: str | None) -> SegmenterSpec:
    from segpipe.inference.preprocess import Normalisation

    numbers = {"minimum": (0,), "maximum": (3000,), "spread": (2000,)}
    spec = InputSpec.model_validate({"dtype": "float32", "whole_numbers": True, "orientation": orientation, **numbers})
    normalisation = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    return SegmenterSpec(
        candidate="u",
        family="unet3d",
        classes=CLASSES,
        normalisation=normalisation,
        dims=3,
        patch3d=(8, 8, 8),
        input=spec,
    )


@pytest.mark.parametrize("codes", ALL_ORDERS[::5])
def test_the_network_sees_one_order_of_voxels_and_the_answer_has_that_of_the_file(codes: str) -> None:
    file = in_order(VOXELS, codes)
    decoded = decode_input(file.to_bytes(), "x", 1.0, volume_model("RAS"))
    np.testing.assert_array_equal(decoded.image[..., 0], VOXELS.transpose(2, 1, 0))
    mask = (decoded.image[..., 0] > 1500).astype(np.uint8)
    answer = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(mask, decoded.geometry)))
    np.testing.assert_array_equal(np.asarray(answer.dataobj), np.asarray(file.dataobj) > 1500)
    np.testing.assert_array_equal(answer.affine, file.affine)


@pytest.mark.parametrize("model", [volume_model(None), volume_model("RAS").model_copy(update={"input": None})])
def test_a_model_without_orientation_gets_the_order_of_the_file(model: SegmenterSpec) -> None:
    file = in_order(VOXELS, "LPS")
    decoded = decode_input(file.to_bytes(), "x", 1.0, model)
    np.testing.assert_array_equal(decoded.image[..., 0], np.asarray(file.dataobj).transpose(2, 1, 0))
    answer = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(decoded.image[..., 0], decoded.geometry)))
    np.testing.assert_array_equal(np.asarray(answer.dataobj), np.asarray(file.dataobj))
    np.testing.assert_array_equal(answer.affine, file.affine)


def test_a_volume_without_orientation_is_refused_by_a_model_with_one() -> None:
    image = nibabel.Nifti1Image(VOXELS, None)
    with pytest.raises(DataError, match="found neither qform nor sform, expected a NIfTI volume with an orientation"):
        decode_input(image.to_bytes(), "x", 1.0, volume_model("RAS"))


def test_case_uploads_of_another_depth(shared_cases: Path) -> None:
    folder = shared_cases / "T03_upload_of_other_depth/serve"
    model = toy_segmenter().spec.model_copy(update={"input": bytes_spec(3)})
    for number in range(8):
        expected = decode_input((folder / f"t{number}-8.png").read_bytes(), "x", 1.0, model).image
        for name in (f"t{number}-16.png", f"t{number}-01.tif"):
            np.testing.assert_array_equal(decode_input((folder / name).read_bytes(), name, 1.0, model).image, expected)
        with pytest.raises(DataError, match="another scale"):
            decode_input((folder / f"t{number}-16dark.png").read_bytes(), "x", 1.0, model)


def test_case_other_orders_of_voxels(shared_cases: Path) -> None:
    folder = shared_cases / "T04_other_voxel_order/serve"
    numbers = {"minimum": (50,), "maximum": (217,), "spread": (100,)}
    spec = InputSpec.model_validate({"dtype": "float32", "whole_numbers": True, "orientation": "RAS", **numbers})
    model = volume_model("RAS").model_copy(update={"input": spec})
    expected = decode_input((folder / "ras.nii.gz").read_bytes(), "x", 1.0, model).image
    for name in ("LAS", "LPS", "PSR", "SRA"):
        path = folder / f"{name}.nii.gz"
        decoded = decode_input(path.read_bytes(), name, 1.0, model)
        np.testing.assert_array_equal(decoded.image, expected)
        answer = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_nifti(decoded.image[..., 0], decoded.geometry)))
        np.testing.assert_array_equal(np.asarray(answer.dataobj), np.asarray(nibabel.load(path).dataobj))
        np.testing.assert_array_equal(answer.affine, nibabel.load(path).affine)
    for name, words in (
        ("float", "another scale"),
        ("noform", "orientation"),
        ("q_differs_s", "different orientations"),
    ):
        with pytest.raises(DataError, match=words):
            decode_input((folder / f"{name}.nii.gz").read_bytes(), name, 1.0, model)


def test_case_five_channels_in_pages(shared_cases: Path) -> None:
    model = toy_segmenter(0, 5).spec.model_copy(update={"input": bytes_spec(5, pages="channels")})
    for path in sorted((shared_cases / "T05_five_channels/images").iterdir()):
        decoded = decode_input(path.read_bytes(), path.name, 1.0, model)
        np.testing.assert_array_equal(decoded.image, tifffile.imread(path).transpose(1, 2, 0))
