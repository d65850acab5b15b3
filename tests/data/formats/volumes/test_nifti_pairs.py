"""Volumes from two folders of NIfTI to shards: sizes, spacing and labels arrive as they were written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from segpipe.config import DataParams, load_params
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.registry import FORMATS
from segpipe.data.formats.recognise import recognise_format
from segpipe.data.formats.source import ReadOptions
from segpipe.data.formats.volumes.nifti_pairs import read_volumes, recognise_volumes
from segpipe.data.images import encode_png
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import ConfigError, DataError

RNG = np.random.default_rng(2)
ZOOMS = (0.5, 0.75, 2.0)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.diag([*ZOOMS, 1])).to_filename(path)


def volume(number: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (9 + number, 12, 7)
    labels = np.zeros(shape, np.uint8)
    labels[2:6, 3:7, 2:5] = 1
    labels[6:8, 3:7, 2:5] = 2
    return (labels * 50 + RNG.random(shape) * 20).astype(np.float32), labels


@pytest.fixture(params=[("images", "labels", ""), ("imagesTr", "labelsTr", ""), ("imgs", "masks", "_seg")])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    images, masks, ending = request.param
    for number in range(3):
        image, labels = volume(number)
        put(tmp_path / "source" / images / f"case {number}.nii.gz", image)
        put(tmp_path / "source" / masks / f"case {number}{ending}.nii.gz", labels.astype(np.float32))
    return tmp_path / "source"


def test_two_folders_of_volumes_become_shards(source: Path, tmp_path: Path) -> None:
    assert recognise_format(source, ReadOptions())[0] is FORMATS["volumes"]
    report = import_dataset(source, tmp_path / "data", "auto", ImportOptions(classes=["background", "head", "tail"]))
    assert (report.format, report.images, report.masks, report.skipped) == ("volumes", 3, 3, [])
    dataset = load_dataset(tmp_path / "data")
    samples = [load_sample(item, dataset.classes, DataParams()) for item in dataset.items]
    assert [s.key for s in samples] == ["case_0", "case_1", "case_2"]
    write_shards(tmp_path / "shards", "train", samples, 3)
    for number, (loaded, sharded) in enumerate(zip(samples, ShardReader(tmp_path / "shards", "train"), strict=True)):
        labels = volume(number)[1]
        for one in (loaded, sharded):
            assert one.spacing == tuple(reversed(ZOOMS))
            assert one.image.shape == (*reversed(labels.shape), 1)
            np.testing.assert_array_equal(one.labels, labels.T)
            written = next(source.glob(f"im*/case {number}.nii.gz"))
            np.testing.assert_array_equal(one.image[..., 0], nibabel.load(written).get_fdata(dtype=np.float32).T)


def test_what_is_no_volume_is_left_out_or_refused(tmp_path: Path) -> None:
    image, labels = volume(0)
    put(tmp_path / "images" / "a.nii.gz", image)
    put(tmp_path / "labels" / "a.nii.gz", labels)
    for folder in ("images", "labels"):
        (tmp_path / folder / "b.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    found = read_volumes(tmp_path, ReadOptions())
    assert [item.name for item in found.items] == ["images/a"]
    assert found.skipped == [("images/b.png", "is no NIfTI file")]
    assert recognise_volumes(tmp_path) is None
    (tmp_path / "images" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match="no volumes"):
        read_volumes(tmp_path, ReadOptions())


def test_an_image_and_a_mask_of_other_sizes_are_no_sample(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.nii.gz", volume(0)[0])
    put(tmp_path / "masks" / "a.nii.gz", volume(1)[1])
    (tmp_path / "dataset.yaml").write_text(
        "classes: [{name: a, value: 0, color: [0, 0, 0]}, {name: b, value: 1, color: [9, 9, 9]}]"
    )
    dataset = load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"not the size of its image \(found 10 x 12 x 7, expected 9 x 12 x 7\)"):
        load_sample(dataset.items[0], dataset.classes, DataParams())


def test_plan_refuses_a_family_of_images_for_volumes(tmp_path: Path, repo_root: Path) -> None:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.samples import Sample
    from segpipe.training.planning.planner import plan_on

    image, labels = volume(0)
    write_shards(tmp_path, "train", [Sample("a", image.T[..., None], labels.T)], 3)
    reader = ShardReader(tmp_path, "train")
    with pytest.raises(ConfigError, match="unet learns from images, and the dataset holds volumes"):
        plan_on("unet", load_params(repo_root), Fingerprint.model_construct(), reader, reader)


def test_stacks_of_tiff_pages_are_volumes_where_the_user_says_so(tmp_path: Path) -> None:
    image, labels = volume(0)
    for folder, array in (("images", image), ("masks", labels)):
        (tmp_path / "source" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "source" / folder / "a.tif", array.T, photometric="minisblack")
    limits = DataParams(pages="volume")
    report = import_dataset(tmp_path / "source", tmp_path / "data", "folder", ImportOptions(), limits=limits)
    assert (report.images, report.masks, report.skipped) == (1, 1, [])
    dataset = load_dataset(tmp_path / "data")
    sample = load_sample(dataset.items[0], dataset.classes, limits)
    np.testing.assert_array_equal(sample.image[..., 0], image.T)
    np.testing.assert_array_equal(sample.labels, labels.T)
    with pytest.raises(DataError, match=r"data\.pages"):
        import_dataset(tmp_path / "source", tmp_path / "other", "folder", ImportOptions())


def test_stacks_of_object_numbers_become_instances(tmp_path: Path) -> None:
    for number in range(4):
        numbers = np.zeros((7, 12, 40), np.uint8)
        numbers.flat[: 40 + number] = range(40 + number)
        for folder, array in (("images", RNG.random((7, 12, 40), np.float32)), ("labels", numbers)):
            (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "source" / folder / f"{number}.tif", array, photometric="minisblack")
    limits = DataParams(pages="volume")
    import_dataset(tmp_path / "source", tmp_path / "data", "folder", ImportOptions(), limits=limits)
    dataset = load_dataset(tmp_path / "data")
    sample = load_sample(dataset.items[0], dataset.classes, limits)
    assert sample.instances is not None
    np.testing.assert_array_equal(np.unique(sample.instances), range(40))
    np.testing.assert_array_equal(sample.labels, sample.instances > 0)
