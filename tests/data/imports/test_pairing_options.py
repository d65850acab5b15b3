"""--prefix, --suffix, --pattern and --mask-pattern: which files are images and masks, and which belong together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from segpipe.errors import ConfigError, DataError
from segpipe.files import safe_name
from tests.worlds.layouts import import_source, items, mask_of, photo, save, values


def write(source: Path, pairs: dict[str, str]) -> None:
    """Write images and masks whose pixels are the same wherever they lie: the n-th mask is that of the n-th image."""
    for seed, (image, mask) in enumerate(pairs.items()):
        photo(source / image, seed)
        save(source / mask, values(seed, [0, 1, 2]))


def check(data: Path, pairs: dict[str, str]) -> None:
    """Check that every image came in with its mask."""
    imported = items(data)
    assert len(imported) == len(pairs)
    for seed, image in enumerate(pairs):
        stem = safe_name(Path(image).stem)
        item = next(item for key, item in imported.items() if key == stem or key.endswith(f"-{stem}"))
        assert (mask_of(item) == values(seed, [0, 1, 2])).all(), image


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        ({"images/a.png": "masks/gt_a.png", "images/b.png": "masks/gt_b.png"}, {"prefix": "gt_"}),
        ({"images/img_a.png": "masks/a.png", "images/img_b.png": "masks/b.png"}, {"prefix": "img_"}),
        (
            {"images/s1/a.png": "masks/s1/gt_a.png", "images/s2/a2.png": "masks/s2/gt_a2.png"},
            {"prefix": "gt_"},
        ),
        ({"images/a.png": "masks/m-a-L.png", "images/b.png": "masks/m-b-L.png"}, {"prefix": "m-", "suffix": "-L"}),
        (
            {"all/a.png": "all/mask_a.png", "all/b.png": "all/mask_b.png"},
            {"prefix": "mask_", "images": "all", "masks": "all"},
        ),
        (
            {"scans/a.png": "drawn/mask_a.png", "scans/mask_b.png": "drawn/mask_mask_b.png"},
            {"prefix": "mask_", "images": "scans", "masks": "drawn"},
        ),
        ({"scans/a.png": "drawn/a_x.png", "scans/b.png": "drawn/b_x.png"}, {"suffix": "_x", "images": "scans", "masks": "drawn"}),
        ({"train/images/a.png": "train/masks/p_a.png", "val/images/b.png": "val/masks/p_b.png"}, {"prefix": "p_"}),
    ],
)  # fmt: skip
def test_affixes(source: Path, data: Path, pairs: dict[str, str], options: dict[str, str]) -> None:
    write(source, pairs)
    import_source(source, data, read=options)
    check(data, pairs)


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        ({"1_sat.png": "1_mask.png", "2_sat.png": "2_mask.png"}, {"pattern": "(.+)_sat", "mask_pattern": "(.+)_mask"}),
        (
            {"p1/scan/x-01.png": "p1/seg/y.01.png", "p2/scan/x-01b.png": "p2/seg/y.01b.png"},
            {
                "pattern": r"^(?P<patient>p\d+)/scan/x-(?P<slice>\w+)\.png$",
                "mask_pattern": r"^(?P<patient>p\d+)/seg/y\.(?P<slice>\w+)\.png$",
            },
        ),
        (
            {"d/frame10.png": "d/label10.png", "d/frame1.png": "d/label1.png"},
            {"pattern": r"frame(?P<n>\d+)", "mask_pattern": r"label(?P<n>\d+)"},
        ),
        (  # the image's expression matches masks, too
            {"a.png": "a_mask.png", "b.png": "b_mask.png"},
            {"pattern": r"^(\w+)\.png", "mask_pattern": r"^(\w+)_mask\.png"},
        ),
        (
            {"in/A 1.png": "out/1 B.png", "in/A 2.png": "out/2 B.png"},
            {"pattern": r"A (\d)", "mask_pattern": r"(\d) B", "images": "in", "masks": "out"},
        ),
        (  # a backward reference, a lookahead and a Unicode class
            {"üa/x1.png": "m/x1x1.png", "üb/x2.png": "m/x2x2.png"},
            {"pattern": r"^ü\w/(x\d)(?=\.)", "mask_pattern": r"/(x\d)\1"},
        ),
    ],
)
def test_patterns(source: Path, data: Path, pairs: dict[str, str], options: dict[str, str]) -> None:
    write(source, pairs)
    report = import_source(source, data, read=options)
    assert report.unused == []
    check(data, pairs)


def test_patterns_take_splits_from_folders(source: Path, data: Path) -> None:
    write(source, {f"{split}/{n}_x.png": f"{split}/{n}_y.png" for n, split in enumerate(("train", "valid", "test"))})
    import_source(source, data, read={"pattern": r"/(.)_x", "mask_pattern": r"/(.)_y"})
    assert {key: item.split for key, item in items(data).items()} == {"0_x": "train", "1_x": "val", "2_x": "test"}


def test_keys_that_several_files_have_are_listed_and_left_out(source: Path, data: Path) -> None:
    write(source, {"a1_x.png": "a1_y.png", "b1_x.png": "b1_y.png", "c1_x.png": "c1_y.png"})
    photo(source / "a2_x.png")
    save(source / "b2_y.png", values(0, [0, 1]))
    report = import_source(source, data, read={"pattern": r"^(.)\d_x", "mask_pattern": r"^(.)\d_y"})
    assert set(items(data)) == {"c1_x"}
    assert any("several images with the key a (a1_x.png, a2_x.png)" in reason for _, reason in report.skipped)
    assert any("several masks with the key b" in reason for _, reason in report.skipped)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "(.+)_x", "mask_pattern": "(.+"}, r"--mask-pattern: not a regular expression: .*Fix: correct it"),
        ({"pattern": "(?P<a.+)", "mask_pattern": "(.+)"}, r"--pattern: not a regular expression"),
        ({"pattern": "(.+)_x"}, r"only one of two.*Fix: add --mask-pattern REGEX"),
        ({"mask_pattern": "(.+)_x"}, r"only one of two.*Fix: add --pattern REGEX"),
        ({"pattern": ".+_x", "mask_pattern": "(.+)_y"}, r"--pattern: the regular expression has no group.*brackets"),
        ({"pattern": "(.+)_z", "mask_pattern": "(.+)_y"}, r"found no images and 2 masks.*correct --pattern"),
        ({"pattern": "(.+)_x", "mask_pattern": "(.+)_z"}, r"no masks.*correct --mask-pattern"),
        ({"pattern": "(.)_x", "mask_pattern": "(._y)"}, r"2 images with the keys a, b and 2 masks with the keys a_y, b_y"),
        ({"pattern": "(a|b){100000}x", "mask_pattern": "(.)_y"}, "too large"),
        ({"pattern": "((a{99}){99}){99}", "mask_pattern": "(.)_y"}, "too large"),
        ({"pattern": "(" + "x" * 600 + ")", "mask_pattern": "(.)_y"}, "too large.*602 characters"),
        ({"prefix": "q_", "images": "images", "masks": "masks"}, r"is not a folder"),
    ],
)  # fmt: skip
def test_errors(source: Path, data: Path, options: dict[str, Any], words: str) -> None:
    write(source, {"a_x.png": "a_y.png", "b_x.png": "b_y.png"})
    with pytest.raises(ConfigError, match=words) as error:
        import_source(source, data, read=options)
    assert "\n" not in str(error.value)
    assert not data.exists()


def test_an_affix_that_no_mask_has(source: Path, data: Path) -> None:
    write(source, {"images/a.png": "masks/a.png"})
    with pytest.raises(ConfigError, match=r"no mask has this prefix.*--prefix q_.*expected a mask called q_a"):
        import_source(source, data, read={"prefix": "q_"})
    with pytest.raises(ConfigError, match=r"no mask has this prefix and suffix.*expected a mask called q_a_L"):
        import_source(source, data, read={"prefix": "q_", "suffix": "_L"})


@pytest.mark.parametrize("expression", ["^(a|aa)+$", "^(a|a?)+$", "^((a|aa)+)+$", "^(?:a|(aa)|a)*x$"])
@pytest.mark.parametrize("option", ["pattern", "group"])
def test_a_catastrophic_expression_does_not_hang(source: Path, data: Path, expression: str, option: str) -> None:
    write(source, {f"images/{'a' * 80}b.png": f"masks/{'a' * 80}b.png"})
    given: dict[str, Any] = {"group": expression} if option == "group" else {}
    if option == "pattern":
        given = {"read": {"pattern": f"images/{expression[1:]}", "mask_pattern": "(zzz)"}}
    start = time.monotonic()
    with pytest.raises((ConfigError, DataError), match=r"takes too long|matches no image|no image and mask are paired"):
        import_source(source, data, **given)
    assert time.monotonic() - start < 30


def test_an_option_is_refused_by_a_layout_that_does_not_use_it(source: Path, data: Path) -> None:
    write(source, {"images/a.png": "masks/a.png"})
    with pytest.raises(ConfigError, match=r"--mask-pattern is not used by the layout coco.*folder, label-maps"):
        import_source(source, data, "coco", read={"mask_pattern": "(.)"})
