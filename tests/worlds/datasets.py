"""Random small datasets in the canonical layout, and what must be equal after a way out and back in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from segpipe.config import DataParams
from segpipe.data.classes import is_background
from segpipe.data.dataset import Dataset, format_classes, format_samples, load_dataset, load_sample
from segpipe.data.exporters.registry import FormatCapabilities
from segpipe.data.images import encode_nifti, encode_png
from segpipe.files import safe_name
from segpipe.samples import IGNORE, ClassSpec, ClassTable

LIMITS = DataParams()


@dataclass(frozen=True)
class Spec:
    """What a random dataset is made of."""

    classes: ClassTable
    keys: list[str]
    shapes: list[tuple[int, ...]]
    channels: int
    instances: bool
    groups: list[str]
    splits: list[str]
    seed: int


NAMES = st.text(st.characters(categories=("Lu", "Ll", "Lo")), min_size=1, max_size=8).filter(
    lambda name: not is_background(name) and name.lower() not in ("ignore", "ignored", "unlabelled", "unlabeled")
)
KEYS = st.text(
    st.characters(categories=("Lu", "Ll", "Nd"), include_characters=" _-é漢"), min_size=1, max_size=12
).filter(lambda key: key == key.strip())


@st.composite
def tables(draw: st.DrawFn, any_classes: bool) -> ClassTable:
    """Class tables: background or not, any values, colours and ignored values."""
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.casefold))
    if not any_classes or draw(st.booleans()):
        names = ["background", *names[1:]]
    top = draw(st.sampled_from([255, 65535]))
    values = draw(st.lists(st.integers(0, top), min_size=len(names) + 2, max_size=len(names) + 2, unique=True))
    ignore = tuple(values[len(names) : len(names) + draw(st.integers(0, 2))])
    colors = draw(
        st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=len(names), max_size=len(names), unique=True)
    )
    specs = tuple(ClassSpec(name=n, value=v, color=c) for n, v, c in zip(names, values, colors, strict=False))
    return ClassTable(classes=specs, ignore=ignore)


@st.composite
def set_tables(draw: st.DrawFn) -> ClassTable:
    """Tables of overlapping classes: any bits, in any order, whose names are names of folders."""
    names = draw(st.lists(NAMES.map(safe_name), min_size=1, max_size=7, unique_by=str.casefold))
    bits = draw(st.permutations([1 << k for k in range(draw(st.sampled_from([7, 15])))]))
    specs = [ClassSpec(name=n, value=v, color=(k, 9, 9)) for k, (n, v) in enumerate(zip(names, bits, strict=False))]
    ground = ClassSpec(name="background", value=0, color=(0, 0, 0))
    ignore = draw(st.sampled_from([(255,), (65535,), (65535, 40000 | 32768)]))
    return ClassTable(classes=(ground, *specs), ignore=ignore, overlapping=True)


@st.composite
def specs(draw: st.DrawFn, carries: FormatCapabilities) -> Spec:
    """Datasets that a layout of these abilities can hold whole."""
    count = draw(st.integers(3, 5))
    keys = draw(st.lists(KEYS, min_size=count, max_size=count, unique_by=lambda key: safe_name(key).casefold()))
    volumes = carries.volumes and draw(st.booleans())
    edges = st.integers(1, 17)
    shape = st.tuples(edges, edges, edges) if volumes else st.tuples(edges, edges)
    nothing = [""] * count
    groups = (
        draw(st.lists(st.sampled_from(["", "p1", "p 2", "ü,3"]), min_size=count, max_size=count))
        if carries.groups
        else nothing
    )
    splits = ["train", "val", "test", *["train"] * (count - 3)] if carries.splits and draw(st.booleans()) else nothing
    if carries.mixed_splits and draw(st.booleans()):
        splits = [
            "",
            *draw(st.lists(st.sampled_from(["", "train", "val", "test"]), min_size=count - 1, max_size=count - 1)),
        ]
    overlapping = carries.overlapping and (not carries.exclusive or draw(st.booleans()))
    classes = draw(set_tables() if overlapping else tables(carries.any_classes))
    return Spec(
        classes,
        keys,
        [draw(shape) for _ in keys],
        draw(st.sampled_from([1, 3])),
        carries.instances and not volumes and not overlapping and draw(st.booleans()),
        groups,
        splits,
        draw(st.integers(0, 1000)),
    )


def write(spec: Spec, folder: Path) -> Path:
    """Write the dataset in the canonical layout; every object is of one class, some pixels of classes are of no object."""
    rng = np.random.default_rng(spec.seed)
    labels = np.arange(spec.classes.labelling.n_labels, dtype=np.uint8)
    values = np.array([*spec.classes.decode(labels).tolist(), *spec.classes.ignore])
    of_objects = [k for k, name in enumerate(spec.classes.names) if not is_background(name)]
    for name in ("images", "masks", "instances"):
        (folder / name).mkdir(parents=True)
    for key, shape in zip(spec.keys, spec.shapes, strict=True):
        places = rng.integers(0, len(values), shape)
        if rng.random() < 0.5:  # large regions too, not noise alone
            places[: shape[0] // 2 + 1] = rng.integers(0, len(values))
        mask = values[places].astype(np.uint8 if values.max() < 256 else np.uint16)
        image = rng.integers(0, 255, (*shape, spec.channels), np.uint8)
        if len(shape) == 3:
            (folder / "images" / f"{key}.nii.gz").write_bytes(encode_nifti(image))
            (folder / "masks" / f"{key}.nii.gz").write_bytes(encode_nifti(mask))
            continue
        (folder / "images" / f"{key}.png").write_bytes(encode_png(image))
        (folder / "masks" / f"{key}.png").write_bytes(encode_png(mask))
        if spec.instances:
            counted = np.isin(places, of_objects)
            ids = np.where(counted & (rng.random(shape) < 0.7), places + 1 + 100 * rng.integers(0, 4, shape), 0)
            (folder / "instances" / f"{key}.png").write_bytes(encode_png(ids.astype(np.uint16)))
    if not spec.instances:
        (folder / "instances").rmdir()
    (folder / "dataset.yaml").write_text(format_classes(spec.classes), encoding="utf-8")
    rows = [
        {"key": k, "group": g, "split": s}
        for k, g, s in zip(spec.keys, spec.groups, spec.splits, strict=True)
        if g or s
    ]
    if rows:
        (folder / "samples.csv").write_text(format_samples(rows), encoding="utf-8")
    return folder


def objects(instances: np.ndarray | None) -> set[frozenset[int]]:
    """Objects as sets of pixels, whatever their numbers."""
    if instances is None:
        return set()
    return {frozenset(np.flatnonzero(instances == number).tolist()) for number in np.unique(instances) if number}


def assert_same(before: Dataset, after: Dataset, carries: FormatCapabilities) -> None:
    """Everything that the layout carries has come back; keys by the names that an import gives them."""
    assert after.classes.names == before.classes.names
    if carries.values:
        assert after.classes == before.classes
    back = {item.key: item for item in after.items}
    assert set(back) == {safe_name(item.key) for item in before.items}
    for item in before.items:
        other = back[safe_name(item.key)]
        old, new = load_sample(item, before.classes, LIMITS), load_sample(other, after.classes, LIMITS)
        assert np.array_equal(old.image, new.image)
        assert old.labels is not None and new.labels is not None
        assert np.array_equal(old.labels, new.labels)
        assert old.spacing == new.spacing
        if carries.instances:
            assert objects(old.instances) == objects(new.instances)
            assert (old.instances is None) == (new.instances is None)
        if carries.groups:
            assert item.group == other.group
        if carries.splits:
            assert item.split == other.split


def ignored_pixels(folder: Path) -> int:
    """Over the whole dataset."""
    dataset = load_dataset(folder)
    return sum(int((load_sample(i, dataset.classes, LIMITS).labels == IGNORE).sum()) for i in dataset.items)
