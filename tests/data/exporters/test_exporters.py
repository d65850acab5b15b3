"""Export formats: the files as other tools read them, the losses that are reported, and no incomplete output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segpipe.cli.main import app
from segpipe.data.dataset import format_classes, format_samples, load_dataset, load_sample
from segpipe.data.exporters.labels import UNKNOWN_PIXELS
from segpipe.data.exporters.registry import EXPORTERS, ExportReport, export_dataset
from segpipe.data.images import encode_nifti, encode_png, encode_tiff, read_mask
from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.samples import IGNORE, ClassSpec, ClassTable
from tests.worlds.datasets import LIMITS

EXCLUSIVE = [name for name, exporter in EXPORTERS.items() if exporter.capabilities.exclusive]

COLORS = [(0, 0, 0), (200, 10, 10), (10, 200, 10)]


def table(*names: str, colors: list[tuple[int, int, int]]) -> ClassTable:
    named = zip(names, (0, 128, 300), colors, strict=True)
    return ClassTable(classes=tuple(ClassSpec(name=n, value=v, color=c) for n, v, c in named), ignore=(7, 9))


TABLE = table("background", "cell", "axon", colors=COLORS)
MASK = np.array([[0, 128, 128, 7], [300, 300, 9, 0], [0, 0, 128, 0]], np.uint16)
INSTANCES = np.array([[0, 1, 1, 0], [2, 2, 0, 0], [0, 0, 1000, 0]], np.uint16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write four images of 4 x 3 pixels with instances, groups and splits."""
    folder = tmp_path / "data"
    for name in ("images", "masks", "instances"):
        (folder / name).mkdir(parents=True)
    for seed, key in enumerate("abcd"):
        image = np.random.default_rng(seed).integers(0, 255, (*MASK.shape, 3), np.uint8)
        for name, array in (("images", image), ("masks", MASK), ("instances", INSTANCES)):
            (folder / name / f"{key}.png").write_bytes(encode_png(array))
    (folder / "dataset.yaml").write_text(format_classes(TABLE))
    rows = [
        {"key": k, "group": f"p{k}", "split": s} for k, s in zip("abcd", ("train", "val", "test", "train"), strict=True)
    ]
    (folder / "samples.csv").write_text(format_samples(rows))
    return folder


def export(data: Path, format: str, **options: object) -> tuple[Path, ExportReport]:
    out = data.parent / "out"
    return out, export_dataset(load_dataset(data), out, format, LIMITS, **options)


def test_coco_is_read_by_its_own_library(data: Path) -> None:
    from faster_coco_eval import COCO

    out, report = export(data, "coco")
    assert sorted(path.name for path in (out / "annotations").iterdir()) == [
        f"instances_{s}.json" for s in ("test", "train", "val")
    ]
    coco = COCO(str(out / "annotations" / "instances_train.json"))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "cell", 2: "axon"}
    assert sorted(image["file_name"] for image in coco.loadImgs(coco.getImgIds())) == ["a.png", "d.png"]
    (first,) = [n for n in coco.getImgIds() if coco.loadImgs(n)[0]["file_name"] == "a.png"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[first]))
    categories = {
        tuple(np.flatnonzero(coco.annToMask(a)).tolist()): a["category_id"] for a in annotations if not a["iscrowd"]
    }
    expected = {1: 1, 2: 2, 1000: 1}
    assert categories == {tuple(np.flatnonzero(n == INSTANCES).tolist()): category for n, category in expected.items()}
    crowds = [a for a in annotations if a["iscrowd"]]
    assert sorted(a["category_id"] for a in crowds) == [1, 2]
    assert all(np.array_equal(coco.annToMask(a) > 0, (MASK == 7) | (MASK == 9)) for a in crowds)
    assert all(a["area"] == coco.annToMask(a).sum() for a in annotations)
    assert report.losses == {}


def test_coco_reports_split_instances(data: Path) -> None:
    instances = INSTANCES.copy()
    instances[1, 0] = 1  # instance 1 now has two classes
    instances[0, 0] = 5  # on the background
    instances[0, 3] = 5  # ignored
    (data / "instances" / "a.png").write_bytes(encode_png(instances))
    _, report = export(data, "coco")
    assert report.losses == {
        "instances of several classes, split into one per class": 1,
        "pixels of instances that the mask marks as background or ignored": 2,
    }


def test_voc_masks_by_index_and_by_colour(data: Path) -> None:
    out, report = export(data, "voc")
    assert (out / "labelmap.txt").read_text().splitlines()[1:] == [
        "background:0,0,0::",
        "cell:200,10,10::",
        "axon:10,200,10::",
        "void:224,224,192::",
    ]
    stored = Image.open(out / "SegmentationClass" / "a.png")
    labels = load_sample(load_dataset(data).items[0], TABLE, LIMITS).labels
    assert stored.mode == "P"
    assert labels is not None
    assert np.array_equal(np.asarray(stored), labels)
    colours = np.asarray(stored.convert("RGB"))
    assert all((colours[labels == k] == COLORS[k]).all() for k in range(3))
    assert (colours[labels == IGNORE] == (224, 224, 192)).all()
    assert (out / "ImageSets" / "Segmentation" / "train.txt").read_text() == "a\nd\n"
    assert np.array_equal(
        np.asarray(Image.open(out / "SegmentationObject" / "a.png")), np.where(INSTANCES == 1000, 3, INSTANCES)
    )
    assert report.losses["images whose group is not stored"] == 4
    assert report.losses["classes whose pixel value changes to their position in labelmap.txt"] == 2


def test_voc_with_more_instances_than_palette_entries(data: Path) -> None:
    many = np.arange(1, 301, dtype=np.uint16).reshape(15, 20)
    for name, array in (
        ("images", np.zeros((15, 20), np.uint8)),
        ("masks", np.full((15, 20), 128, np.uint16)),
        ("instances", many),
    ):
        (data / name / "a.png").write_bytes(encode_png(array))
    out, _ = export(data, "voc")
    stored = read_mask(out / "SegmentationObject" / "a.png", LIMITS)
    assert stored.dtype == np.uint16
    assert set(np.unique(stored).tolist()) == {*range(1, 302)} - {255}


def test_voc_colours_and_names_that_clash(data: Path) -> None:
    clashing = table("background", "cell", "axon", colors=[(0, 0, 0), (0, 0, 0), (224, 224, 192)])
    (data / "dataset.yaml").write_text(format_classes(clashing))
    out, report = export(data, "voc")
    lines = [line.split(":")[1] for line in (out / "labelmap.txt").read_text().splitlines()[1:]]
    assert len(set(lines)) == 4
    assert report.losses["class colours changed because another class has the same"] == 2
    for name in ("a:b", "#x", "7up", '"q"', "void"):
        specs = (TABLE.classes[0], TABLE.classes[1].model_copy(update={"name": name}))
        (data / "dataset.yaml").write_text(format_classes(ClassTable(classes=specs, ignore=(7, 9, 300))))
        with pytest.raises(DataError, match=r"labelmap\.txt cannot contain"):
            export(data, "voc", replace_out=True)


def test_voc_names_have_no_blanks(data: Path) -> None:
    for name in ("images", "masks"):
        (data / name / "a.png").rename(data / name / "a b.png")
    (data / "samples.csv").write_text(format_samples([{"key": "a b", "group": "", "split": "val"}]))
    out, report = export(data, "voc")
    assert (out / "ImageSets" / "Segmentation" / "val.txt").read_text() == "a_b\n"
    assert (out / "JPEGImages" / "a_b.png").exists()
    assert report.losses["names whose blanks are replaced"] == 1


def test_nnunet_follows_its_documentation(data: Path) -> None:
    out, report = export(data, "nnunet")
    assert json.loads((out / "dataset.json").read_text()) == {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "cell": 1, "axon": 2, "ignore": 3},
        "numTraining": 3,
        "file_ending": ".png",
    }
    assert sorted(p.name for p in (out / "imagesTr").iterdir()) == [f"{k}_{c:04d}.png" for k in "abd" for c in range(3)]
    assert [p.name for p in (out / "labelsTs").iterdir()] == ["c.png"]
    assert json.loads((out / "splits_final.json").read_text()) == [{"train": ["a", "d"], "val": ["b"]}]
    label = np.asarray(Image.open(out / "labelsTr" / "a.png"))
    assert np.array_equal(label, [[0, 1, 1, 3], [2, 2, 3, 0], [0, 0, 1, 0]])
    green = np.asarray(Image.open(out / "imagesTr" / "a_0001.png"))
    assert np.array_equal(green, np.asarray(Image.open(data / "images" / "a.png"))[:, :, 1])
    assert report.losses["images whose instances are not stored, only their classes"] == 4


def test_nnunet_folds_keep_groups_together(data: Path) -> None:
    groups = {"a": "p1", "b": "p2", "c": "p1", "d": ""}
    (data / "samples.csv").write_text(format_samples([{"key": k, "group": g, "split": ""} for k, g in groups.items()]))
    out, _ = export(data, "nnunet")
    folds = json.loads((out / "splits_final.json").read_text())
    assert len(folds) > 1
    assert sorted(key for fold in folds for key in fold["val"]) == list("abcd")
    for fold in folds:
        assert not {groups[k] for k in fold["train"] if groups[k]} & {groups[k] for k in fold["val"] if groups[k]}
        assert sorted(fold["train"] + fold["val"]) == list("abcd")


def test_nnunet_stores_floats_as_tiff(data: Path) -> None:
    for key in "abcd":
        (data / "images" / f"{key}.png").unlink()
        (data / "images" / f"{key}.tif").write_bytes(
            encode_tiff(np.random.default_rng(0).random((*MASK.shape, 2), np.float32))
        )
    out, _ = export(data, "nnunet")
    assert json.loads((out / "dataset.json").read_text())["file_ending"] == ".tif"
    assert Image.open(out / "imagesTr" / "a_0001.tif").mode == "F"


def test_nnunet_requires_a_background(data: Path) -> None:
    text = format_classes(TABLE)
    (data / "dataset.yaml").write_text(text.replace('"background"', '"sky"'))
    out, report = export(data, "nnunet")
    assert json.loads((out / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "sky": 1,
        "cell": 2,
        "axon": 3,
        "ignore": 4,
    }
    assert any("requires a background" in line for line in report.lines())
    (data / "dataset.yaml").write_text(text.replace('"axon"', '"ignore"'))
    with pytest.raises(DataError, match="reserved in nnU-Net"):
        export(data, "nnunet", replace_out=True)


@pytest.mark.parametrize("format", EXCLUSIVE)
def test_a_bad_image_is_left_out(data: Path, format: str) -> None:
    (data / "masks" / "b.png").unlink()
    (data / "masks" / "b.png").mkdir()
    (data / "masks" / "c.png").write_bytes(b"no image")
    (data / "masks" / "d.png").write_bytes(encode_png(np.where(MASK == 128, 77, MASK)))
    out, report = export(data, format)
    if format == "folder":  # it copies files without decoding them
        assert report.images == 4
        return
    assert report.images == 2
    assert [key for key, _ in report.left_out] == ["b", "c"]
    assert report.losses[UNKNOWN_PIXELS] == 3
    assert any("left out: c" in line for line in report.lines())
    assert out.is_dir()


@pytest.mark.parametrize("format", EXCLUSIVE)
def test_a_failed_export_changes_nothing(data: Path, format: str) -> None:
    out = data.parent / "out"
    out.mkdir()
    (out / "precious.txt").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        export(data, format)
    for path in (data / "images").iterdir():
        path.write_bytes(b"")
    for path in (data / "masks").iterdir():
        path.unlink()
    if format != "folder":
        with pytest.raises(SegpipeError):
            export(data, format, replace_out=True)
        assert [p.name for p in out.iterdir()] == ["precious.txt"]
        assert sorted(p.name for p in data.parent.iterdir()) == ["data", "out"]


@pytest.mark.parametrize("format", EXCLUSIVE)
def test_only_the_chosen_splits_and_the_same_bytes_again(data: Path, format: str) -> None:
    _, report = export(data, format, splits=["val", "test"])
    assert report.images == 2
    out, _ = export(data, format, replace_out=True)
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    export(data, format, replace_out=True, jobs=1)
    assert before == {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match="no image is in these splits"):
        export(data, format, splits=["dev"])


def test_an_unknown_format_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="coco or voc or folder or mask-per-class or nnunet"):
        export(data, "tarot")


def test_volumes_are_left_out_of_formats_for_2d_images(data: Path) -> None:
    for name, array in (("images", np.zeros((2, 3, 4, 1), np.uint8)), ("masks", np.zeros((2, 3, 4), np.uint8))):
        (data / name / "a.png").unlink()
        (data / name / "a.nii.gz").write_bytes(encode_nifti(array))
    (data / "instances" / "a.png").unlink()
    for format in ("coco", "voc"):
        _, report = export(data, format, replace_out=True)
        ((key, reason),) = report.left_out
        assert key == "a"
        assert "is a volume" in reason
    _, report = export(data, "nnunet", replace_out=True)
    assert sorted(key for key, _ in report.left_out) == ["b", "c", "d"]


@pytest.fixture
def workspace(data: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the dataset the data of a workspace, and enter the workspace."""
    for name in ("dvc.yaml", "params.yaml"):
        (data.parent / name).write_bytes((repo_root / name).read_bytes())
    monkeypatch.chdir(data.parent)
    return data.parent


def command(*arguments: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["data", "export", *arguments])
    return result.exit_code, result.stdout, result.exception


def test_the_command_writes_and_reports(workspace: Path) -> None:
    out = workspace / "exported"
    code, printed, _ = command(str(out), "--format", "coco", "--split", "train,val")
    assert (code, printed.strip()) == (0, str(out))
    assert len(list((out / "images").iterdir())) == 3
    assert "is not empty" in str(command(str(out), "--format", "coco")[2])
    code, printed, _ = command(str(out), "--format", "voc", "--replace", "--json")
    assert code == 0
    assert json.loads(printed)["images"] == 4
    assert json.loads(printed)["losses"]["images whose group is not stored"] == 4


@pytest.mark.parametrize("where", ["data", "data/images", ".", "..", "data/new", ".git"])
def test_the_command_does_not_overwrite_the_workspace(workspace: Path, where: str) -> None:
    before = sorted(workspace.rglob("*"))
    code, _, error = command(str(workspace / where), "--format", "coco", "--replace")
    assert code != 0
    assert "would overwrite the workspace" in str(error)
    assert sorted(workspace.rglob("*")) == before


def test_the_command_uses_the_splits_of_the_manifest(workspace: Path) -> None:
    from segpipe.config import DataParams, SplitParams
    from segpipe.data.manifest.build import build_manifest
    from segpipe.data.manifest.table import write_manifest

    (workspace / "data" / "samples.csv").unlink()
    frame = build_manifest(load_dataset(workspace / "data"), DataParams(), SplitParams(), jobs=1)
    write_manifest(frame, workspace / "artifacts" / "manifest.parquet")
    chosen = frame["split"].iloc[0]
    assert command(str(workspace / "out"), "--format", "folder", "--split", chosen)[0] == 0
    expected = sorted(frame["key"][frame["split"] == chosen])
    assert sorted(path.stem for path in (workspace / "out" / "images").iterdir()) == expected
    assert "no such split" in str(command(str(workspace / "out"), "--format", "folder", "--split", "dev")[2])
