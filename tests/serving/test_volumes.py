"""Tests of a bundle for volumes: its content, the files of `segpipe predict`, the answers of the server."""

from __future__ import annotations

import base64
import gzip
import json

import nibabel
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from segpipe.config import DataParams, ExportParams
from segpipe.data.images import decode_image
from segpipe.data.images.nifti import decode_nifti, nifti_geometry
from segpipe.errors import DataError
from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.files.batch import predict_files
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bundle import golden_pairs, replay_golden
from segpipe.release.export.bundle_export import write_bundle
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings
from tests.worlds.bundles import toy_selection
from tests.worlds.readers import MemoryReader
from tests.worlds.volumes import TinyVolumeConfig, build, ellipsoid

LIMITS = DataParams()
CLASSES = [("background", 0), ("front", 7), ("back", 300)]


def table():
    from segpipe.samples import ClassTable

    return ClassTable.from_names([n for n, _ in CLASSES], [v for _, v in CLASSES])


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    """Random weights, centred so that every class wins somewhere."""
    torch.manual_seed(4)
    network = build(TinyVolumeConfig(), 1, 3).eval()
    normalisation = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    with torch.no_grad():
        network[-1].bias -= network(torch.from_numpy(normalisation.apply(ellipsoid(0).image)[None])).mean((0, 2, 3, 4))
    spec = SegmenterSpec(
        candidate="unet",
        family="unet3d",
        classes=table(),
        normalisation=normalisation,
        dims=3,
        patch3d=(16, 16, 16),
        spacing=(1.0, 1.0, 1.0),
        stride=4,
    )
    return Segmenter(spec, TorchEngine(network))


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "bundle"
    reader = MemoryReader([ellipsoid(i, spacing=(2.0, 1.0, 1.0)) for i in range(3)])
    write_bundle(trained, "f" * 64, reader, toy_selection(True), ExportParams(golden=2), folder)
    return folder


@pytest.fixture(scope="module")
def client(bundle):
    app = create_app()
    settings = Settings(endpoint=None, bundle=bundle, workers=1, max_upload_mb=0.5, max_megapixels=0.02)
    attach(app, ModelHolder(None, bundle), settings)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Write a file as a scanner does: oblique affine, voxels of 0.9 x 1.1 x 2.5 mm (i, j, k)."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.9, 1.1, 2.5])
    affine[:3, 3] = (-80.5, 12.25, 33.0)
    voxels = ellipsoid(8, (20, 22, 24)).image[..., 0].transpose(2, 1, 0)
    path = tmp_path_factory.mktemp("scan") / "head.one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def test_the_bundle_answers_its_golden_volumes_exactly(bundle, trained):
    spec = SegmenterSpec.read(bundle)
    assert (spec.dims, spec.patch3d, spec.spacing) == (3, (16, 16, 16), (1.0, 1.0, 1.0))
    pairs = golden_pairs(bundle)
    assert [p.input.name for p in pairs] == ["input-0.nii.gz", "input-1.nii.gz"]
    for pair in pairs:
        arguments = pair.predict_arguments()
        assert arguments["spacing"] == (2.0, 1.0, 1.0) and arguments["image"].dtype == np.float32
        assert pair.class_ids().shape == arguments["image"].shape[:3]
    same = [np.ravel(trained.predict(**p.predict_arguments()).class_ids == p.class_ids()) for p in pairs]
    assert np.concatenate(same).mean() >= ExportParams().min_agreement
    assert replay_golden(Segmenter.from_bundle(bundle), bundle).identical
    assert len({int(v) for p in pairs for v in np.unique(p.class_ids())}) == 3


def test_predict_writes_a_mask_with_the_affine_of_its_input(bundle, scan, tmp_path):
    (scan.parent / "notes.txt").write_text("not a volume")
    segmenter = Segmenter.from_bundle(bundle)
    (row,) = predict_files(segmenter, [scan.parent], tmp_path, LIMITS)
    assert row["mask"] == "masks/head.one.nii.gz" and (row["depth"], row["height"], row["width"]) == (20, 22, 24)
    before, after = nibabel.load(scan), nibabel.load(tmp_path / row["mask"])
    assert after.shape == before.shape
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    assert after.header.get_zooms() == pytest.approx((0.9, 1.1, 2.5), rel=1e-5)
    voxels = np.asarray(after.dataobj).transpose(2, 1, 0)
    assert set(np.unique(voxels)) <= {0, 7, 300}, "the values of training masks"
    image = np.asarray(before.dataobj).transpose(2, 1, 0)
    expected = segmenter.predict(image, spacing=(2.5, 1.1, 0.9)).class_ids
    np.testing.assert_array_equal(table().encode(voxels.astype(np.uint16)), expected)
    assert decode_image((tmp_path / row["overlay"]).read_bytes(), "o", 1).shape == (22, 24, 3)
    assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-5)


def test_an_image_for_a_model_for_volumes_is_reported(bundle, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "flat.png"), np.zeros((9, 9), np.uint8))
    (row,) = predict_files(Segmenter.from_bundle(bundle), [tmp_path / "flat.png"], tmp_path / "out", LIMITS)
    assert "the model takes volumes" in row["error"] and "flat.png" in row["error"]


@pytest.mark.parametrize("body", [False, True])
def test_the_server_answers_a_volume_with_a_volume(client, bundle, scan, body):
    content = scan.read_bytes()
    sent = (
        {"content": content, "headers": {"content-type": "application/gzip"}}
        if body
        else {"files": {"image": (scan.name, content)}}
    )
    answer = client.post("/v1/segment", **sent)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/gzip", answer.text
    written, given = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.content)), nibabel.load(scan)
    np.testing.assert_array_equal(written.affine, given.affine)
    mask = np.asarray(written.dataobj).transpose(2, 1, 0).astype(np.uint16)
    image = np.asarray(given.dataobj).transpose(2, 1, 0)[..., None]  # in the order of the file: this bundle states none
    expected = Segmenter.from_bundle(bundle).predict(image, spacing=(2.5, 1.1, 0.9)).class_ids
    np.testing.assert_array_equal(table().encode(mask), expected)


def test_json_shows_the_fullest_slice(client, scan):
    answer = client.post(
        "/v1/segment", params={"format": "json", "preview": True}, files={"image": (scan.name, scan.read_bytes())}
    )
    result = json.loads(answer.content)
    assert (result["depth"], result["height"], result["width"]) == (20, 22, 24) and 0 <= result["slice"] < 20
    mask, preview = (decode_image(base64.b64decode(result[part]["data"]), part, 1) for part in ("mask", "preview"))
    assert mask.shape == (22, 24, 1) and preview.shape == (22, 24, 3)
    assert sum(c["pixels"] for c in result["classes"]) == 20 * 22 * 24, "pixels are counted in the whole volume"
    drawn = client.post("/v1/segment", params={"format": "overlay"}, files={"image": ("x.nii.gz", scan.read_bytes())})
    assert drawn.headers["content-type"] == "image/png"


def bomb() -> bytes:
    """Return a few kilobytes of gzip whose header claims 4 billion voxels."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((2048, 2048, 1024))
    header.set_data_dtype(np.uint8)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(1 << 20))


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (bomb(), 422, "too many voxels"),
        (b"\x1f\x8b" + b"not gzip at all", 422, "cannot be decoded"),
        (b"", 422, "empty"),
        (np.random.default_rng(0).bytes(1 << 20), 413, "too large"),
    ],
)
def test_a_bad_volume_is_refused_with_a_reason(client, content, status, reason):
    answer = client.post("/v1/segment", files={"image": ("x.nii.gz", content)})
    assert answer.status_code == status and reason in answer.json()["error"]


def test_a_truncated_volume_is_refused(client, scan):
    cut = gzip.compress(gzip.decompress(scan.read_bytes())[:5000])
    answer = client.post("/v1/segment", files={"image": ("x.nii.gz", cut)})
    assert answer.status_code == 422 and "cut short" in answer.json()["error"]


def test_encoded_volumes_decode_to_themselves():
    from segpipe.release.export.golden import centre_crop, encode_image

    volume = np.random.default_rng(0).random((5, 6, 7, 2), np.float32)
    suffix, content = encode_image(volume, "v", (3.0, 0.7, 0.5))
    assert suffix == ".nii.gz" and nifti_geometry(content, "v").spacing == (3.0, 0.7, 0.5)
    from segpipe.data.images.bounds import Bounds

    np.testing.assert_array_equal(decode_nifti(content, "v", Bounds.from_limits(LIMITS))[0], volume)
    assert centre_crop(np.zeros((200, 100, 300, 1))).shape == (128, 100, 128, 1)
    with pytest.raises(DataError):
        encode_image(np.zeros((4, 4, 2), np.complex64), "complex")


@pytest.mark.slow  # a server process
def test_a_real_server_gives_the_golden_masks_of_volumes(bundle, tmp_path):
    from segpipe.release.bundle import compare_masks
    from segpipe.release.packaging.bento_server import start_server
    from segpipe.release.packaging.blessing import _replay
    from segpipe.serving.server import SERVICE
    from segpipe.serving.settings import BUNDLE

    pairs = golden_pairs(bundle)
    with start_server(SERVICE, settings={BUNDLE: str(bundle)}) as server:
        masks, times = _replay(server, pairs, SegmenterSpec.read(bundle))
    assert compare_masks(pairs, masks).identical and len(times) > 2
