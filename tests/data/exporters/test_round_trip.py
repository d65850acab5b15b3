"""Export and import again: everything that the capabilities of a format list is unchanged."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from segpipe.data.dataset import Dataset, load_dataset
from segpipe.data.exporters.registry import EXPORTERS, export_dataset
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.images import decode_geometry
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.samples import ClassTable
from tests.worlds.datasets import LIMITS, assert_same, dataset_specs, write_dataset
from tests.worlds.layouts import recognised
from tests.worlds.property_tests import examples


@pytest.mark.parametrize("name", EXPORTERS)
@examples(
    25,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a whole dataset takes minutes
)
@given(data=st.data())
def test_random_datasets_are_unchanged(name: str, data: st.DataObject) -> None:
    capabilities = EXPORTERS[name].capabilities
    spec = data.draw(dataset_specs(capabilities))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        before = load_dataset(write_dataset(spec, root / "data"))
        report = export_dataset(before, root / "out", name, LIMITS, jobs=1)
        assert report.images == len(before.items)
        assert report.left_out == []
        imported = import_dataset(root / "out", root / "again", name, ImportOptions(), jobs=1)
        assert imported.skipped == []
        assert_same(before, load_dataset(root / "again"), capabilities)


@pytest.mark.parametrize("name", [name for name, exporter in EXPORTERS.items() if exporter.capabilities.exclusive])
def test_exported_formats_are_recognised(name: str, demo: Path, tmp_path: Path) -> None:
    export_dataset(load_dataset(demo), tmp_path / "out", name, LIMITS, jobs=1)
    assert recognised(SourceProbe(tmp_path / "out"))[0] == name


def select_images(dataset: Dataset, count: int) -> Dataset:
    """Select about `count` images, spread over the dataset."""
    return replace(dataset, items=dataset.items[:: max(1, len(dataset.items) // count)][:count])


def _export_and_import(before: Dataset, name: str, root: Path) -> Dataset:
    report = export_dataset(before, root / "out", name, LIMITS)
    assert (report.images, report.left_out) == (len(before.items), [])
    assert import_dataset(root / "out", root / "again", name, ImportOptions()).skipped == []
    return load_dataset(root / "again")


@pytest.mark.parametrize("name", ["voc", "folder", "coco"])
def test_street_scenes(shared_data: Path, tmp_path: Path, name: str) -> None:
    options = ImportOptions(classes=[f"c{k}" for k in range(11)], ignore=[11])
    import_dataset(shared_data / "camvid", tmp_path / "data", "paired-list", options)
    before = select_images(load_dataset(tmp_path / "data"), 8)
    assert {item.split for item in before.items} == {"train", "val", "test"}
    assert_same(before, _export_and_import(before, name, tmp_path), EXPORTERS[name].capabilities)


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_nuclei(shared_data: Path, tmp_path: Path, name: str) -> None:
    import_dataset(shared_data / "nuclei", tmp_path / "data", "coco", ImportOptions())
    before = select_images(load_dataset(tmp_path / "data"), 8)
    assert_same(before, _export_and_import(before, name, tmp_path), EXPORTERS[name].capabilities)


@pytest.mark.parametrize("name", ["nnunet", "folder"])
def test_volumes(shared_data: Path, tmp_path: Path, name: str) -> None:
    import_dataset(shared_data / "hippocampus", tmp_path / "data", "volumes", ImportOptions())
    before = select_images(load_dataset(tmp_path / "data"), 6)
    after = _export_and_import(before, name, tmp_path)
    if name == "nnunet":  # nnU-Net requires this name
        before = replace(before, classes=_with_names(before.classes, ["background", *before.classes.names[1:]]))
    assert_same(before, after, EXPORTERS[name].capabilities)
    for old, new in zip(before.items, after.items, strict=True):
        for one, other in ((old.image, new.image), (old.mask, new.mask)):
            assert one and other
            assert decode_geometry(one.read_bytes(), "") == decode_geometry(other.read_bytes(), "")


def _with_names(classes: ClassTable, names: list[str]) -> ClassTable:
    named = zip(classes.classes, names, strict=True)
    return classes.model_copy(update={"classes": tuple(c.model_copy(update={"name": n}) for c, n in named)})
