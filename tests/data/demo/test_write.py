"""The demo data: the same bytes everywhere, valid files, and a problem that is worth learning."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segpipe.data.demo import write as demo_module
from segpipe.data.demo import integer_drawing
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.demo.write import DEMO_CLASSES, draw_demo_image, write_demo
from segpipe.data.demo.integer_drawing import TRANSMISSION, TURNS, RandomIntegers, blur, stored_png
from segpipe.data.splits import SPLITS, assign_split
from segpipe.errors import DataError

from tests.worlds.small_datasets import LIMITS, SPLIT

GOLDEN = {
    "images/cells-000.png": "6b4a2e665be49d3084ba6fb4b0f6043f80c3b48a5521edfa7fb26ad68790bb5f",
    "masks/cells-000.png": "ffdb9711940ef5af879ff365d34569040fb0d905cc790f23150eabb519375ed7",
    "instances/cells-000.png": "b73e43f16fa124d7f5668ed0873c7906a4a2a09b68f1c5e8eb4af37ae7ba0fe6",
}


def test_the_first_files_have_the_hashes_they_always_had(demo: Path) -> None:
    assert {name: hashlib.sha256((demo / name).read_bytes()).hexdigest() for name in GOLDEN} == GOLDEN


@pytest.mark.slow
def test_data_dvc_is_the_pointer_of_what_is_written(tmp_path: Path, repo_root: Path) -> None:
    write_demo(tmp_path / "data")
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "add", "-q", "data"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "data.dvc").read_text() == (repo_root / "data.dvc").read_text()


def test_data_dvc_is_the_hash_of_what_is_written(tmp_path: Path, repo_root: Path) -> None:
    """As above, without DVC: the MD5 of its sorted list of files."""
    write_demo(tmp_path / "data")
    files = sorted(
        (p for p in (tmp_path / "data").rglob("*") if p.is_file()), key=lambda p: p.relative_to(tmp_path).parts
    )
    listing = [
        {"md5": hashlib.md5(p.read_bytes()).hexdigest(), "relpath": p.relative_to(tmp_path / "data").as_posix()}
        for p in files
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    pointer = yaml.safe_load((repo_root / "data.dvc").read_text())["outs"][0]
    assert pointer["nfiles"] == len(files)
    assert pointer["size"] == sum(p.stat().st_size for p in files)
    assert pointer["md5"] == hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir"


def test_pil_reads_what_was_drawn(demo: Path) -> None:
    dataset = load_dataset(demo)
    assert dataset.classes == DEMO_CLASSES
    for index in (0, 7, 23):
        slide, image, labels, ids = draw_demo_image(index, 2026)
        item = dataset.items[index]
        assert item.group == slide.name
        for path, drawn in ((item.image, image), (item.mask, labels), (item.instances, ids)):
            assert path is not None
            np.testing.assert_array_equal(np.asarray(Image.open(path)), drawn)
        sample = load_sample(item, dataset.classes, LIMITS)
        np.testing.assert_array_equal(sample.labels, labels)
        np.testing.assert_array_equal(sample.instances, ids)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 3), (200, 400, 3), (256, 256), (1, 65534), (1, 65535)])
def test_stored_png_holds_any_array(shape: tuple[int, ...]) -> None:
    """Also where the raw lines just fill a block of 65535 bytes, and just do not."""
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = stored_png(array)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))).reshape(shape), array)
    Image.open(io.BytesIO(content)).verify()
    start = content.index(b"IDAT") + 4
    assert zlib.decompress(content[start:-16]) == b"".join(b"\0" + line.tobytes() for line in array)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "data", images=3)
    for path in (tmp_path / "data" / "images").iterdir():
        assert path.read_bytes() == (demo / "images" / path.name).read_bytes()


def test_another_seed_draws_other_images() -> None:
    assert draw_demo_image(0, 1)[1].tobytes() != draw_demo_image(0, 2)[1].tobytes()


def test_demo_data_are_replaced_and_other_data_are_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_demo(data, images=3)
    write_demo(data, images=2)
    assert len(list((data / "images").iterdir())) == 2
    (data / "dataset.yaml").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_demo(data, images=2)
    assert (data / "dataset.yaml").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_slides_fall_into_all_splits_with_both_stains_in_each(demo: Path) -> None:
    splits = {item.group: assign_split(item.group, SPLIT) for item in load_dataset(demo).items if item.group}
    assert len(splits) == 24
    assert {(group.split("-")[0], split) for group, split in splits.items()} == {
        (stain, split) for stain in ("pink", "blue") for split in SPLITS
    }


@pytest.mark.parametrize("index", range(6))
def test_truth_is_consistent(index: int) -> None:
    _, image, labels, ids = draw_demo_image(index, 2026)
    assert image.shape == (*labels.shape, 3)
    assert image.shape[:2] == ids.shape
    assert 160 <= min(labels.shape) <= max(labels.shape) <= 256
    assert ((ids > 0) == (labels > 0)).all()
    assert np.unique(ids).tolist() == list(range(ids.max() + 1))
    assert np.unique(labels).tolist() == [0, 1, 2]


def test_a_threshold_confuses_debris_and_cells() -> None:
    """The best threshold of an image between nucleus and the rest, chosen with the truth in hand, still fails on most."""
    from skimage.filters import threshold_multiotsu

    scores = []
    for index in range(8):
        _, image, labels, _ = draw_demo_image(index, 2026)
        green = image[:, :, 1]
        found = 2 - np.digitize(green, threshold_multiotsu(green, 3))
        scores.append([((found == c) & (labels == c)).sum() / ((found == c) | (labels == c)).sum() for c in range(3)])
    assert np.mean(scores) < 0.65


def test_integer_noise_is_nearly_normal_and_streams_differ() -> None:
    noise = RandomIntegers(1, 2).bell(200, 200)
    assert abs(noise.mean()) < 5
    assert abs(noise.std() - 148) < 3
    assert RandomIntegers(1, 2).octets(50).tolist() == RandomIntegers(1, 2).octets(50).tolist()
    assert RandomIntegers(1, 2).octets(50).tolist() != RandomIntegers(1, 3).octets(50).tolist()


def test_tables_are_what_they_stand_for() -> None:
    angles = np.arange(16) * np.pi / 8
    np.testing.assert_allclose(TURNS, 256 * np.stack([np.cos(angles), np.sin(angles)], 1), atol=0.6)
    np.testing.assert_allclose(TRANSMISSION[:300] / 2**20, (63 / 64) ** np.arange(300), rtol=0.01)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_blur_is_the_mean_of_a_window(radius: int) -> None:
    plane = np.random.default_rng(0).integers(0, 1000, (9, 11)).astype(np.int64)
    padded = np.pad(plane, radius, mode="edge")
    slow = [[padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1].mean() for x in range(11)] for y in range(9)]
    np.testing.assert_allclose(blur(plane, radius), slow, atol=1.0)  # rounded twice, once an axis


def test_nothing_is_drawn_with_floating_point() -> None:
    drawing = [
        node for node in ast.parse(inspect.getsource(demo_module)).body if getattr(node, "name", "") != "write_demo"
    ]
    for node in ast.walk(ast.Module(drawing + ast.parse(inspect.getsource(integer_drawing)).body, [])):
        assert not isinstance(node, ast.Div), "a division with a fraction"
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), node.value
        assert not (
            isinstance(node, ast.Attribute) and node.attr in {"default_rng", "sqrt", "exp", "sin", "cos", "mean"}
        ), node.attr
