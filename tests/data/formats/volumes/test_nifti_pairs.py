"""NIfTI volumes in two folders: sizes, spacing and labels are unchanged from the source to the shards."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from segpipe.config import DataParams, load_params
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.formats.volumes.nifti_pairs import read_volumes, recognise_volumes
from segpipe.data.images import encode_png
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import recognised

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
    assert recognised(SourceProbe(source))[0] == "volumes"
    report = import_dataset(source, tmp_path / "data", "auto", ImportOptions(classes=["background", "head", "tail"]))
    assert (report.format, report.images, report.masks, report.skipped) == ("volumes", 3, 3, [])
    dataset = load_dataset(tmp_path / "data")
    samples = [load_sample(item, dataset.classes, DataParams()) for item in dataset.items]
    assert [s.key for s in samples] == ["case_0", "case_1", "case_2"]
    write_shards(tmp_path / "shards", "train", samples, 3)
    for number, (loaded, sharded) in enumerate(zip(samples, ShardReader(tmp_path / "shards", "train"), strict=True)):
        labels = volume(number)[1]
        for sample in (loaded, sharded):
            assert sample.spacing == tuple(reversed(ZOOMS))
            assert sample.image.shape == (*reversed(labels.shape), 1)
            np.testing.assert_array_equal(sample.labels, labels.T)
            written = next(source.glob(f"im*/case {number}.nii.gz"))
            np.testing.assert_array_equal(sample.image[..., 0], nibabel.load(written).get_fdata(dtype=np.float32).T)


def test_files_that_are_not_volumes_are_left_out(tmp_path: Path) -> None:
    image, labels = volume(0)
    put(tmp_path / "images" / "a.nii.gz", image)
    put(tmp_path / "labels" / "a.nii.gz", labels)
    for folder in ("images", "labels"):
        (tmp_path / folder / "b.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    result = read_volumes(SourceProbe(tmp_path), ReadOptions())
    assert [item.name for item in result.items] == ["images/a"]
    assert result.skipped == [("images/b.png", "not a NIfTI file")]
    assert recognise_volumes(SourceProbe(tmp_path)) is None
    (tmp_path / "images" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match="no volumes"):
        read_volumes(SourceProbe(tmp_path), ReadOptions())


def test_an_image_and_a_mask_of_different_sizes_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.nii.gz", volume(0)[0])
    put(tmp_path / "masks" / "a.nii.gz", volume(1)[1])
    (tmp_path / "dataset.yaml").write_text(
        "classes: [{name: a, value: 0, color: [0, 0, 0]}, {name: b, value: 1, color: [9, 9, 9]}]"
    )
    dataset = load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"not the size of its image \(found 10 x 12 x 7, expected 9 x 12 x 7\)"):
        load_sample(dataset.items[0], dataset.classes, DataParams())


def test_planning_refuses_a_family_for_images_on_volumes(tmp_path: Path, repo_root: Path) -> None:
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.samples import Sample
    from segpipe.training.planning.planner import plan_on

    image, labels = volume(0)
    write_shards(tmp_path, "train", [Sample("a", image.T[..., None], labels.T)], 3)
    reader = ShardReader(tmp_path, "train")
    with pytest.raises(ConfigError, match="unet learns from images, and the dataset holds volumes"):
        plan_on("unet", load_params(repo_root), Fingerprint.model_construct(), reader, reader)


def test_tiff_pages_are_slices_of_a_volume_if_the_settings_say_so(tmp_path: Path) -> None:
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


def test_stacks_of_instance_ids_become_instances(tmp_path: Path) -> None:
    for number in range(4):
        ids = np.zeros((7, 12, 40), np.uint8)
        ids.flat[: 40 + number] = range(40 + number)
        for folder, array in (("images", RNG.random((7, 12, 40), np.float32)), ("labels", ids)):
            (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "source" / folder / f"{number}.tif", array, photometric="minisblack")
    limits = DataParams(pages="volume")
    import_dataset(tmp_path / "source", tmp_path / "data", "folder", ImportOptions(), limits=limits)
    dataset = load_dataset(tmp_path / "data")
    sample = load_sample(dataset.items[0], dataset.classes, limits)
    assert sample.instances is not None
    np.testing.assert_array_equal(np.unique(sample.instances), range(40))
    np.testing.assert_array_equal(sample.labels, sample.instances > 0)
