"""Near-duplicates compared with a search pair by pair, and on real images with planted changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template

from benchmarks.near_duplicates import CHANGES as BENCHMARK
from benchmarks.near_duplicates import false_pairs, recall
from segpipe.config import DataParams, SplitParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.demo.write import draw_demo_image
from segpipe.data.images import read_image
from segpipe.data.images.statistics import MINIATURE_EDGE
from segpipe.data.importer import ImportOptions, import_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.validation import duplicates
from segpipe.validation.duplicates import compare_miniatures, near_duplicates
from segpipe.validation.expectations import validate_manifest
from segpipe.validation.findings import Finding
from tests.worlds.manifests import set_values, sound_manifest

RANK = {"train": 0, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def demo_images() -> dict[str, np.ndarray]:
    return {str(index): draw_demo_image(index, 2026)[1] for index in range(24)}


def similar_rows(seed: int, count: int = 120) -> pd.DataFrame:
    """Return rows whose hashes and intensities often nearly agree."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 4)
    rows = []
    for i in range(count):
        bits = int(centres[rng.integers(4)])
        for flip in rng.integers(0, 64, rng.integers(0, 6)):
            bits ^= 1 << int(flip)
        channels = int(rng.choice([1, 3], p=[0.2, 0.8]))
        height, width = rng.choice([100, 102, 110], 2)
        rows.append(
            {
                "height": height,
                "width": width,
                "depth": rng.choice([None, 4], p=[0.9, 0.1]),
                "channels": channels,
                "path": f"images/{i}.png",
                "split": str(rng.choice(list(RANK))),
                "phash": f"{bits:016x}",
                "error": None,
                "sha256": str(rng.integers(count // 2)),
                "miniature": rng.bytes(MINIATURE_EDGE**2),
                "mean": rng.uniform(95, 105, channels),
                "std": rng.uniform(19, 21, channels) * (i % 9 > 0),
            }
        )
    return pd.DataFrame(rows).astype({"depth": "Int64"})


def pair_by_pair(frame: pd.DataFrame, distance: int, tolerance: float) -> dict[int, tuple[str, int, int]]:
    lookalikes: dict[int, tuple[str, int, int]] = {}
    for i, a in frame.iterrows():
        near = []
        for _, b in frame.iterrows():
            if RANK[b["split"]] >= RANK[a["split"]] or a["sha256"] == b["sha256"] or len(a["mean"]) != len(b["mean"]):
                continue
            if (
                str(a["depth"]) != str(b["depth"])
                or not 1 / 1.05 <= a["height"] / a["width"] / b["height"] * b["width"] <= 1.05
            ):
                continue
            bits = bin(int(a["phash"], 16) ^ int(b["phash"], 16)).count("1")
            scale = max(max(a["mean"] + a["std"]), max(b["mean"] + b["std"]))
            difference = max(max(abs(a["mean"] - b["mean"])), max(abs(a["std"] - b["std"])))
            if bits <= distance and difference <= tolerance * scale and a["std"].max() > 0 and b["std"].max() > 0:
                near.append((bits, b["path"]))
        if near:
            lookalikes[i] = (min(bits for bits, _ in near), len(near))
    return lookalikes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_near_duplicates_are_those_of_a_search_pair_by_pair(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK_PAIRS", block)
    frame = similar_rows(seed)
    lookalikes = near_duplicates(frame, 4, 0.04, 0.93)
    assert {i: (near.distance, near.others + 1) for i, near in lookalikes.items()} == pair_by_pair(frame, 4, 0.04)
    assert len(lookalikes) > 10
    by_path = frame.set_index("path")
    for i, near in lookalikes.items():
        bits = int(frame.at[i, "phash"], 16) ^ int(by_path.at[near.path, "phash"], 16)
        assert bits.bit_count() == near.distance
        assert near.split == by_path.at[near.path, "split"]


def test_blank_images_and_exact_copies_are_not_near_duplicates() -> None:
    frame = sound_manifest()
    set_values(frame, 0, phash=frame.at[5, "phash"], std=np.zeros(3))
    set_values(frame, 1, phash=frame.at[6, "phash"], sha256=frame.at[6, "sha256"])
    set_values(frame, 7, phash=frame.at[8, "phash"])  # both in train
    set_values(frame, 2, phash=frame.at[9, "phash"], mean=np.full(3, 130.0))  # brighter by a quarter
    set_values(frame, 3, phash=frame.at[10, "phash"], height=11)  # with other proportions
    assert near_duplicates(frame, 6, 0.06, 0.93) == {}


def jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_UNCHANGED)


def brighter(share: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.clip(np.round(image * share), 0, 255).astype(np.uint8)


def shifted(pixels: int) -> Callable[[np.ndarray], np.ndarray]:
    def shift(image: np.ndarray) -> np.ndarray:
        matrix = np.float32([[1, 0, pixels], [0, 1, 1]])
        return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)

    return shift


def resized(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=0.95, fy=0.95, interpolation=cv2.INTER_AREA)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg": jpeg,
    "brighter": brighter(1.05),
    "darker": brighter(0.95),
    "shift-1": shifted(1),
    "shift-2": shifted(2),
    "smaller": resized,
}


def plant(data: Path, keys: list[str], split_of: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Write a changed copy of an image for each change, and an exact copy, into another split. Returns {new: (old path, change)}."""
    planted = {}
    lines = ["key,group,split"] + [f"{key},,{split}" for key, split in split_of.items()]
    for key, (name, change) in zip(keys, [*CHANGES.items(), ("copy", None)], strict=True):
        image, mask = data / "images" / f"{key}.png", data / "masks" / f"{key}.png"
        new = f"planted-{name}"
        target = data / "images" / f"{new}.png"
        if change is None:
            shutil.copy(image, target)
            shutil.copy(mask, data / "masks" / f"{new}.png")
        else:
            picture = change(cv2.imread(str(image)))
            cv2.imwrite(str(target), picture)
            labels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
            labels = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(data / "masks" / f"{new}.png"), labels)
        lines.append(f"{new},,{'test' if split_of[key] == 'train' else 'train'}")
        planted[f"images/{new}.png"] = (f"images/{key}.png", name)
    (data / "samples.csv").write_text("\n".join(lines) + "\n")
    return planted


def check_data(data: Path) -> list[Finding]:
    dataset = load_dataset(data)
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    return validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "options"),
    [("camvid", "paired-list", {"ignore": [11]}), ("nuclei", "folder", {})],
)
def test_planted_leaks_are_found_in_real_data_and_clean_data_has_none(
    shared_data: Path, tmp_path: Path, name: str, format: str, options: dict
) -> None:
    data = tmp_path / "data"
    import_dataset(shared_data / name, data, format, ImportOptions(**options))
    dataset = load_dataset(data)
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    clean = validate_manifest(frame, make_fingerprint(frame, dataset.classes), ValidateParams())[0]
    assert [f for f in clean if f.severity == "error" or "duplicate" in f.expectation] == []

    split_of = dict(zip(frame["key"], frame["split"], strict=True))
    keys = list(np.random.default_rng(7).choice(frame["key"], len(CHANGES) + 1, replace=False))
    planted = plant(data, keys, split_of)
    findings = check_data(data)
    pairs = {frozenset((f.file, f.other)) for f in findings if f.expectation == "near_duplicates"}
    assert {frozenset((new, old)) for new, (old, change) in planted.items() if change != "copy"} <= pairs
    assert all(pair & planted.keys() for pair in pairs)  # neighbouring frames of a planted one resemble it as well
    exact = {f.file for f in findings if f.expectation == "no_copies_across_splits" and f.severity == "error"}
    (copied,) = [{new, old} for new, (old, change) in planted.items() if change == "copy"]
    assert exact == copied

    lines = (data / "samples.csv").read_text().replace(",,", ",patient-1,", 3).splitlines()
    splits = {line.rsplit(",", 1)[1] for line in lines[1:4]}
    if len(splits) == 1:
        lines[1] = lines[1].rsplit(",", 1)[0] + (",test" if splits == {"train"} else ",train")
    (data / "samples.csv").write_text("\n".join(lines) + "\n")
    (leak,) = [f for f in check_data(data) if "groups" in f.expectation]
    assert (leak.severity, leak.found) == ("error", "group patient-1 is in train and test according to samples.csv")


@pytest.mark.parametrize("change", sorted(BENCHMARK))
def test_changed_copies_of_the_demo_are_found(demo_images: dict[str, np.ndarray], change: str) -> None:
    assert recall(demo_images, BENCHMARK[change], ValidateParams().near_duplicate_likeness) >= 0.95


def test_images_of_the_demo_are_not_near_duplicates(demo_images: dict[str, np.ndarray]) -> None:
    assert false_pairs(demo_images, ValidateParams().near_duplicate_likeness) == {}


def test_shifts_of_small_images_are_found_by_their_miniatures(shared_data: Path) -> None:
    """Hashes alone find few shifted images of cells (120 pixels) and nuclei (256 pixels and more)."""
    likeness = ValidateParams().near_duplicate_likeness
    for folder in (shared_data / "wbc" / "dataset1" / "images", shared_data / "nuclei" / "images"):
        images = {path.stem: read_image(path, DataParams()) for path in sorted(folder.iterdir())[::8]}
        assert recall(images, BENCHMARK["shift 8"], likeness=2.0) < 0.3
        assert recall(images, BENCHMARK["shift 4"], likeness) == 1
        assert recall(images, BENCHMARK["shift 8"], likeness) > 0.9
        assert recall(images, BENCHMARK["crop 5 %"], likeness) > 0.95
        assert false_pairs(images, likeness) == {}


def test_one_cell_cut_out_twice_is_found_and_two_similar_cells_are_not(shared_data: Path) -> None:
    """Image 84 shows the same white blood cell as 71, 4 pixels closer; 62 and 113, 98 and 95 are only similarly round and dark."""
    names = ("071", "084", "062", "113", "098", "095")
    folder = shared_data / "wbc" / "dataset1" / "images"
    images = {name: read_image(folder / f"{name}.png", DataParams()) for name in names}
    assert false_pairs(images, ValidateParams().near_duplicate_likeness) == {"084": "071"}


def test_a_crop_is_found_by_enlarging_the_other_miniature() -> None:
    rng = np.random.default_rng(5)
    field = cv2.GaussianBlur(rng.normal(size=(480, 480)).astype(np.float32), (0, 0), 15)
    field = cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    one, crop, other = (
        cv2.resize(part, (48, 48), interpolation=cv2.INTER_AREA).tobytes()
        for part in (field, field[12:-12, 12:-12], field.T)
    )
    for pair in ((one, crop), (crop, one)):
        assert compare_miniatures(*pair, enough=0.0) < 0.97 < compare_miniatures(*pair)
    assert compare_miniatures(one, other) < 0.8


def test_the_correlation_of_miniatures_is_that_of_scikit_image() -> None:
    """The correlation of an image with itself, shifted by (3, -5) of 48 pixels, is 1 at that shift; noise correlates with nothing."""
    rng = np.random.default_rng(3)
    field = cv2.GaussianBlur(rng.normal(size=(64, 64)).astype(np.float32), (0, 0), 2)
    field = cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    one, moved = field[8:56, 8:56], field[11:59, 3:51]
    assert compare_miniatures(one.tobytes(), moved.tobytes()) > 0.97
    details = [gaussian_filter(m.astype(float), 1) - gaussian_filter(m.astype(float), 6) for m in (one, moved)]
    best = max(match_template(whole, part[6:42, 6:42]).max() for whole, part in (details, details[::-1]))
    assert compare_miniatures(one.tobytes(), moved.tobytes()) == pytest.approx(best, abs=2e-3)
    noise = rng.integers(0, 256, (48, 48), dtype=np.uint8)
    assert compare_miniatures(one.tobytes(), noise.tobytes()) < 0.5
    assert compare_miniatures(bytes(48 * 48), one.tobytes()) <= 0.5
    assert compare_miniatures(bytes(48 * 48), bytes(48 * 48)) == 0


def test_a_shift_by_half_a_pixel_is_found_like_one_by_a_whole_pixel() -> None:
    rng = np.random.default_rng(4)
    field = cv2.GaussianBlur(rng.normal(size=(128, 128)).astype(np.float32), (0, 0), 2)
    field = cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    small = [cv2.resize(field[y : y + 96, y : y + 96], (48, 48), interpolation=cv2.INTER_AREA) for y in (10, 12, 13)]
    whole, half = (compare_miniatures(small[0].tobytes(), other.tobytes()) for other in small[1:])
    assert whole > 0.999
    assert half > 0.98


def test_the_peak_of_a_paraboloid_is_found_between_its_points() -> None:
    y, x = np.mgrid[:9, :9]
    surface = 0.9 - 0.02 * (y - 3.3) ** 2 - 0.01 * (x - 5.6) ** 2
    assert surface.max() < 0.898
    assert duplicates._peak(surface) == pytest.approx(0.9)
    assert (
        duplicates._peak(surface[:4]) == surface[:4].max() + 0.01 * 0.4**2
    )  # on the edge, interpolated along the edge only
    assert duplicates._peak(np.ones((1, 1))) == 1
