"""Random small datasets in the canonical layout, and a comparison of datasets after export and import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from segpipe.config import DataParams
from segpipe.data.classes import is_background
from segpipe.data.dataset import Dataset, format_classes, format_samples, load_sample
from segpipe.data.exporters.registry import FormatCapabilities
from segpipe.data.images import encode_nifti, encode_png
from segpipe.files import safe_name
from segpipe.samples import ClassSpec, ClassTable

LIMITS = DataParams()


@dataclass(frozen=True)
class Spec:
    """The specification of a random dataset."""

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
    """Draw class tables, with or without a background, with any values, colours and ignored values."""
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
def overlapping_tables(draw: st.DrawFn) -> ClassTable:
    """Draw tables of overlapping classes: any bits, in any order, with names that can be folder names."""
    names = draw(st.lists(NAMES.map(safe_name), min_size=1, max_size=7, unique_by=str.casefold))
    bits = draw(st.permutations([1 << k for k in range(draw(st.sampled_from([7, 15])))]))
    specs = [ClassSpec(name=n, value=v, color=(k, 9, 9)) for k, (n, v) in enumerate(zip(names, bits, strict=False))]
    background = ClassSpec(name="background", value=0, color=(0, 0, 0))
    ignore = draw(st.sampled_from([(255,), (65535,), (65535, 40000 | 32768)]))
    return ClassTable(classes=(background, *specs), ignore=ignore, overlapping=True)


@st.composite
def dataset_specs(draw: st.DrawFn, capabilities: FormatCapabilities) -> Spec:
    """Draw datasets that a format with these capabilities preserves completely."""
    count = draw(st.integers(3, 5))
    keys = draw(st.lists(KEYS, min_size=count, max_size=count, unique_by=lambda key: safe_name(key).casefold()))
    volumes = capabilities.volumes and draw(st.booleans())
    edges = st.integers(1, 17)
    shape = st.tuples(edges, edges, edges) if volumes else st.tuples(edges, edges)
    empty = [""] * count
    groups = (
        draw(st.lists(st.sampled_from(["", "p1", "p 2", "ü,3"]), min_size=count, max_size=count))
        if capabilities.groups
        else empty
    )
    splits = (
        ["train", "val", "test", *["train"] * (count - 3)] if capabilities.splits and draw(st.booleans()) else empty
    )
    if capabilities.mixed_splits and draw(st.booleans()):
        splits = [
            "",
            *draw(st.lists(st.sampled_from(["", "train", "val", "test"]), min_size=count - 1, max_size=count - 1)),
        ]
    overlapping = capabilities.overlapping and (not capabilities.exclusive or draw(st.booleans()))
    classes = draw(overlapping_tables() if overlapping else tables(capabilities.any_classes))
    return Spec(
        classes,
        keys,
        [draw(shape) for _ in keys],
        draw(st.sampled_from([1, 3])),
        capabilities.instances and not volumes and not overlapping and draw(st.booleans()),
        groups,
        splits,
        draw(st.integers(0, 1000)),
    )


def write_dataset(spec: Spec, folder: Path) -> Path:
    """Write the dataset in the canonical layout. Every instance has one class; some labelled pixels belong to no instance."""
    rng = np.random.default_rng(spec.seed)
    labels = np.arange(spec.classes.labelling.n_labels, dtype=np.uint8)
    values = np.array([*spec.classes.decode(labels).tolist(), *spec.classes.ignore])
    instance_values = [k for k, name in enumerate(spec.classes.names) if not is_background(name)]
    for name in ("images", "masks", "instances"):
        (folder / name).mkdir(parents=True)
    for key, shape in zip(spec.keys, spec.shapes, strict=True):
        indices = rng.integers(0, len(values), shape)
        if rng.random() < 0.5:  # some large regions, not only noise
            indices[: shape[0] // 2 + 1] = rng.integers(0, len(values))
        mask = values[indices].astype(np.uint8 if values.max() < 256 else np.uint16)
        image = rng.integers(0, 255, (*shape, spec.channels), np.uint8)
        if len(shape) == 3:
            (folder / "images" / f"{key}.nii.gz").write_bytes(encode_nifti(image))
            (folder / "masks" / f"{key}.nii.gz").write_bytes(encode_nifti(mask))
            continue
        (folder / "images" / f"{key}.png").write_bytes(encode_png(image))
        (folder / "masks" / f"{key}.png").write_bytes(encode_png(mask))
        if spec.instances:
            labelled = np.isin(indices, instance_values)
            ids = np.where(labelled & (rng.random(shape) < 0.7), indices + 1 + 100 * rng.integers(0, 4, shape), 0)
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


def instance_pixels(instances: np.ndarray | None) -> set[frozenset[int]]:
    """Return the pixels of each instance, whatever their ids."""
    if instances is None:
        return set()
    return {frozenset(np.flatnonzero(instances == number).tolist()) for number in np.unique(instances) if number}


def assert_same(before: Dataset, after: Dataset, capabilities: FormatCapabilities) -> None:
    """Compare everything that the format preserves. Keys are compared after the change that an import makes to names."""
    assert after.classes.names == before.classes.names
    if capabilities.values:
        assert after.classes == before.classes
    imported = {item.key: item for item in after.items}
    assert set(imported) == {safe_name(item.key) for item in before.items}
    for item in before.items:
        other = imported[safe_name(item.key)]
        old, new = load_sample(item, before.classes, LIMITS), load_sample(other, after.classes, LIMITS)
        assert np.array_equal(old.image, new.image)
        assert old.labels is not None and new.labels is not None
        assert np.array_equal(old.labels, new.labels)
        assert old.spacing == new.spacing
        if capabilities.instances:
            assert instance_pixels(old.instances) == instance_pixels(new.instances)
            assert (old.instances is None) == (new.instances is None)
        if capabilities.groups:
            assert item.group == other.group
        if capabilities.splits:
            assert item.split == other.split
