"""The page of data statistics: it needs no network, and its numbers are those of the files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from segpipe.data.dataset import format_classes, format_samples, load_dataset
from segpipe.data.images import encode_png
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.errors import DataError
from segpipe.files import write_json
from segpipe.pages.data_stats import DataStats, read_stats, write_stats_page
from segpipe.pages.data_stats.page import split_rule
from segpipe.samples import ClassTable
from segpipe.validation.findings import Finding
from tests.worlds.small_datasets import LIMITS, SPLIT, MakeData

Write = Callable[..., Path]


@pytest.fixture
def root(make_data: MakeData, repo_root: Path, tmp_path: Path) -> Path:
    data = make_data(12, samples=[{"key": "im03", "group": "<b>group & co</b>", "split": "val"}])
    (data / "images" / "im04.png").write_bytes(b"")
    shutil.copy(repo_root / "params.yaml", tmp_path)
    return tmp_path


def offline(page: str) -> bool:
    HTMLParser().feed(page)
    return not re.search(r"""(src|href)=["'](?!data:|#)""", page) and not re.search(r"https?://", page)


def test_the_page_is_complete_escaped_and_reproducible(root: Path) -> None:
    out = write_stats_page(root, root / "reports" / "data.html")
    page = out.read_text()
    assert offline(page)
    assert "&lt;b&gt;group &amp; co&lt;/b&gt;" in page
    assert "<b>group" not in page
    assert "1 more cannot be used" in page
    assert "images/im04.png" in page
    assert "segpipe validate" in page
    assert page.index('id="problems"') < page.index('id="classes"') < page.index('id="random"')
    assert write_stats_page(root, root / "again.html").read_text() == page


def test_problems_are_about_the_current_data(root: Path) -> None:
    """The findings of validation are used as long as they are about these data; after that the data are judged again."""
    judged: list[int] = []

    def judge(manifest: pd.DataFrame, _: ClassTable) -> list[Finding]:
        judged.append(len(manifest))
        return [Finding(expectation="new", severity="warning", file=None, found="a", expected="b", fix="c")]

    def checks() -> list[str]:
        return [problem.check for problem in read_stats(root, judge).problems or []]

    assert (checks(), judged) == (["new"], [12])
    dataset = load_dataset(root / "data")
    make_fingerprint(build_manifest(dataset, LIMITS, SPLIT), dataset.classes).write(root / "artifacts/fingerprint.json")
    write_json(root / "reports/validation/findings.json", {"passed": True, "findings": []})
    assert (checks(), judged) == ([], [12])
    (root / "data" / "images" / "im07.png").unlink()
    (root / "data" / "masks" / "im07.png").unlink()
    assert (checks(), judged) == (["new"], [12, 11])


def test_problems_come_first_and_errors_before_warnings(root: Path) -> None:
    words = {"found": "a <script>", "expected": "b", "fix": "c"}

    def finding(check: str, severity: str, image: int) -> dict[str, str]:
        return {"expectation": check, "severity": severity, "file": f"images/im{image:02d}.png"} | words

    findings = [
        finding("odd", "note", 2),
        finding("blank", "warning", 0),
        *(finding("copies", "error", i) for i in range(9)),
    ]
    path = root / "reports" / "validation" / "findings.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"passed": False, "findings": findings}))
    problems = read_stats(root).problems
    assert problems is not None
    assert [(p.check, p.count, len(p.examples)) for p in problems] == [
        ("copies", 9, 5),
        ("blank", 1, 1),
        ("odd", 1, 1),
    ]
    page = write_stats_page(root, root / "x.html").read_text()
    assert page.index("Copies") < page.index("Blank") < page.index("Odd") < page.index('id="classes"')
    assert page.count('alt="images/im00.png"') == 2
    assert 'alt="images/im04.png"' not in page  # it cannot be read
    assert "a <script>" not in page
    path.write_text('{"findings": [{"severity": "error"}]}')
    with pytest.raises(DataError, match=r"findings.json.*segpipe validate"):
        read_stats(root)


@pytest.fixture
def write(repo_root: Path, tmp_path: Path) -> Write:
    """Write a workspace of given arrays: images {key: array}, masks, instances, class names, rows of samples.csv."""

    def workspace(
        images: dict[str, np.ndarray], masks: dict[str, np.ndarray], names: list[str], samples=None, instances=None
    ) -> Path:
        for folder, arrays in (("images", images), ("masks", masks), ("instances", instances or {})):
            for key, array in arrays.items():
                (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
                _save(tmp_path / "data" / folder / key, array)
        (tmp_path / "data" / "dataset.yaml").write_text(format_classes(ClassTable.from_names(names)))
        if samples:
            (tmp_path / "data" / "samples.csv").write_text(format_samples(samples))
        shutil.copy(repo_root / "params.yaml", tmp_path)
        return tmp_path

    return workspace


def _save(stem: Path, array: np.ndarray) -> None:
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        import tifffile

        tifffile.imwrite(stem.with_name(stem.name + ".tif"), array, photometric="minisblack", planarconfig="contig")
    else:
        stem.with_name(stem.name + ".png").write_bytes(encode_png(array))


def test_numbers_are_those_of_the_files(write: Write) -> None:
    rng = np.random.default_rng(1)
    images = {f"i{n}": rng.integers(0, 60000, (30 + n % 3, 40, 3)).astype(np.uint16) for n in range(12)}
    ids = {key: _blocks(rng, image.shape[:2]) for key, image in images.items()}
    masks = {key: (plane > 0).astype(np.uint8) + (plane == 2) for key, plane in ids.items()}
    samples = [
        {"key": key, "group": f"g{n % 3}", "split": ("train", "val", "test")[n % 3]} for n, key in enumerate(images)
    ]
    stats = read_stats(write(images, masks, ["background", "cell", "odd one"], samples, ids))
    assert (stats.images, stats.usable, stats.dtypes, stats.channel_counts) == (12, 12, {"uint16": 12}, {3: 12})
    for class_id, row in enumerate(stats.classes):
        for n, split in enumerate(("train", "val", "test")):
            planes = [masks[s["key"]] for s in samples[n::3]]
            pixels = sum(int((p == class_id).sum()) for p in planes)
            assert row.pixels[split] == pixels
            assert row.images[split] == sum(bool((p == class_id).any()) for p in planes)
            assert row.share[split] == pytest.approx(pixels / sum(p.size for p in planes))
    areas = [int(n) for plane in ids.values() for n in np.unique(plane[plane > 0], return_counts=True)[1]]
    assert stats.objects is not None
    assert stats.objects.areas is not None
    assert (stats.objects.count, stats.objects.smallest) == (len(areas), min(areas))
    assert sum(stats.objects.areas.counts["all"]) == len(areas)
    assert sum(stats.objects.per_image.counts["all"]) == 12
    red = stats.intensity[0]
    assert red.mean == pytest.approx(np.concatenate([i[:, :, 0].ravel() for i in images.values()]).mean())
    assert list(red.means.counts) == ["g0", "g1", "g2"]
    assert [w[1] for w in red.windows] == pytest.approx(sorted(float(i[:, :, 0].mean()) for i in images.values()))
    assert all(low <= mean <= high for low, mean, high in red.windows)
    assert [(g.name, g.images, g.splits) for g in stats.groups] == [
        (f"g{n}", 4, {s: 4 * (s == split) for s in ("train", "val", "test")})
        for n, split in enumerate(("train", "val", "test"))
    ]
    assert sum(size.images for size in stats.sizes) == 12
    assert stats.regions is not None
    assert DataStats.model_validate_json(stats.model_dump_json()) == stats


def _blocks(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    plane = np.zeros(shape, np.uint8)
    for number in (1, 2, 3):
        h, w = rng.integers(2, 7, 2)
        plane[9 * number : 9 * number + h, 10 : 10 + w] = number
    return plane


@pytest.mark.parametrize("channels", [1, 2, 5, 9])
def test_any_number_of_channels(write: Write, channels: int) -> None:
    rng = np.random.default_rng(0)
    images = {f"i{n}": rng.normal(0, 9, (20, 30, channels)).astype(np.float32) for n in range(3)}
    images |= {"grey": np.zeros((20, 30), np.uint8)} if channels > 1 else {}
    if channels == 1:
        images = {key: (image * 9 + 100).clip(0, 255).astype(np.uint8) for key, image in images.items()}
    masks = {key: rng.integers(0, 2, (20, 30)).astype(np.uint8) for key in images}
    root = write(images, masks, ["background", "cell"])
    assert len(read_stats(root).intensity) == channels
    assert offline(write_stats_page(root, root / "x.html").read_text())


def test_sixty_classes_with_long_names(write: Write) -> None:
    names = [f"class {n} " + "with-a-long-name" * 5 for n in range(60)]
    mask = np.arange(60, dtype=np.uint8).repeat(40).reshape(60, 40)
    root = write({"i": np.zeros((60, 40), np.uint8)}, {"i": mask}, names)
    page = write_stats_page(root, root / "x.html").read_text()
    assert all(name in page for name in names)


def test_the_page_says_if_no_image_is_usable(write: Write) -> None:
    root = write({"i": np.zeros((9, 9), np.uint8)}, {"i": np.zeros((8, 9), np.uint8)}, ["a", "b"])
    stats = read_stats(root)
    assert (stats.usable, stats.data_hash, stats.intensity) == (0, None, [])
    page = write_stats_page(root, root / "x.html").read_text()
    assert "0 usable images" in page
    assert "images/i.png" in page


def test_the_page_stays_small_with_noisy_images(write: Write) -> None:
    rng = np.random.default_rng(0)
    keys = [f"i{n}" for n in range(40)]
    images = {key: rng.integers(0, 256, (360, 360, 3), dtype=np.uint8) for key in keys}
    masks = {key: rng.integers(0, 6, (360, 360)).astype(np.uint8) for key in keys}
    root = write(images, masks, list("abcdef"))
    assert write_stats_page(root, root / "x.html").stat().st_size < 8e6


def test_a_dataset_of_volumes(repo_root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(3):
        mask = np.zeros((12 + n, 14, 16), np.uint8)  # X, Y, Z
        mask[2:8, 3:9, 4:7] = 1
        image = (rng.normal(0, 1, mask.shape) + 5 * mask).astype(np.float32) * 10.0**n
        for folder, array in (("images", image), ("masks", mask)):
            nibabel.save(
                nibabel.Nifti1Image(array, np.diag([1, 1, 2.5, 1])), tmp_path / "data" / folder / f"v{n}.nii.gz"
            )
    (tmp_path / "data" / "dataset.yaml").write_text(format_classes(ClassTable.from_names(["background", "organ"])))
    shutil.copy(repo_root / "params.yaml", tmp_path)
    stats = read_stats(tmp_path)
    assert {(s.width, s.height, s.depth) for s in stats.sizes} == {(12, 14, 16), (13, 14, 16), (14, 14, 16)}
    assert [(s.mm, s.orientation, s.images) for s in stats.spacing] == [([2.5, 1, 1], "RAS", 3)]
    assert sum(stats.classes[1].pixels.values()) == 3 * 6 * 6 * 3
    page = write_stats_page(tmp_path, tmp_path / "x.html").read_text()
    assert "3 usable volumes" in page
    assert "108 voxels" in page
    assert offline(page)


def test_many_small_groups_are_not_series(write: Write) -> None:
    keys = [f"i{n:02d}" for n in range(24)]
    images = {key: np.full((8, 8), n, np.uint8) for n, key in enumerate(keys)}
    masks = {key: np.eye(8, dtype=np.uint8) for key in keys}
    splits = ["train", "val"] * 12
    samples = [{"key": k, "group": f"g{n // 2}", "split": splits[n // 2]} for n, k in enumerate(keys)]
    root = write(images, masks, ["a", "b"], samples)
    assert list(read_stats(root).intensity[0].means.counts) == ["train", "val"]
    samples = [{"key": k, "group": "big" if n < 12 else f"g{n}", "split": "train"} for n, k in enumerate(keys)]
    (root / "data" / "samples.csv").write_text(format_samples(samples))
    counts = read_stats(root).intensity[0].means.counts
    assert {name: sum(bins) for name, bins in counts.items()} == {
        "big": 12,
        "g12": 1,
        "g13": 1,
        "g14": 1,
        "g15": 1,
        "others": 8,
    }


@pytest.mark.parametrize(
    ("groups", "method", "rule"),
    [
        ([""] * 3, "hash", "derived from a hash of the content of each image,"),
        ([f"g{n}" for n in range(20)], "hash", "derived from a hash of the name of the group"),
        (["a", "b"], "hash", "balanced: because there are few groups"),
        (["a", "b"], "stratified", "balanced: because there are few groups"),
        (["a", "a"], "stratified", "drawn by hash from strata"),
        (["a", "b"], "ranges", "contiguous blocks"),
    ],
)
def test_the_rule_of_the_splits_is_the_one_that_is_used(groups: list[str], method: str, rule: str) -> None:
    manifest = pd.DataFrame({"group": groups, "split_given": False})
    assert split_rule(manifest, method).startswith(rule)


def test_images_with_a_given_split_do_not_count_for_the_rule() -> None:
    manifest = pd.DataFrame({"group": ["a", "b", "", ""], "split_given": [True, True, False, False]})
    assert split_rule(manifest, "hash").startswith("derived from a hash of the content of each image,")
