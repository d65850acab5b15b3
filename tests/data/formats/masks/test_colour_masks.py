"""Masks in colours: palettes of every kind, blurred edges, colours that are not in the palette."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.data.formats.masks.palette_files import read_palette
from segpipe.data.formats.masks.palettes import make_palette
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, mask_of, photo, save, values
from tests.worlds.property_tests import examples

PALETTE = [("road", (128, 64, 128)), ("sky", (70, 130, 180)), ("car", (0, 0, 142)), ("void", (0, 0, 0))]
PALETTE_TEXTS = {
    "palette.json": json.dumps(dict(PALETTE)),
    "rows.json": json.dumps([{"name": name, "color": "#" + bytes(colour).hex()} for name, colour in PALETTE]),
    "palette.yaml": "classes:\n" + "".join(f"  - {{name: {n}, color: [{r}, {g}, {b}]}}\n" for n, (r, g, b) in PALETTE),
    "class_dict.csv": "name,r,g,b\n" + "".join(f"{n}, {r}, {g}, {b}\n" for n, (r, g, b) in PALETTE),
    "label_colors.txt": "".join(f"{r} {g} {b}\t\t{n}\n" for n, (r, g, b) in PALETTE),
    "labelmap.txt": "# label:color_rgb:parts:actions\n" + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in PALETTE),
}


def write_coloured(source: Path, name: str = "a", seed: int = 0) -> np.ndarray:
    """Write an image and a mask in the colours of PALETTE; return the class values (255 void)."""
    photo(source / "images" / f"{name}.png")
    indices = values(seed, [0, 1, 2, 3])
    save(source / "masks" / f"{name}.png", np.array([colour for _, colour in PALETTE], np.uint8)[indices])
    return np.where(indices == 3, 255, indices)


@pytest.mark.parametrize("file", PALETTE_TEXTS)
def test_palettes_of_every_kind(source: Path, data: Path, tmp_path: Path, file: str) -> None:
    truth = write_coloured(source)
    (tmp_path / file).write_text(PALETTE_TEXTS[file])
    report = import_source(source, data, read={"palette": str(tmp_path / file)})
    assert report.format == "colour-masks"
    assert [(spec.name, spec.value, spec.color) for spec in report.classes.classes] == [
        (name, index, colour) for index, (name, colour) in enumerate(PALETTE[:3])
    ]
    assert report.classes.ignore == (255,)
    assert report.classes_from == file
    np.testing.assert_array_equal(mask_of(items(data)["a"]), truth)


@pytest.mark.parametrize("file", ["palette.json", "class_dict.csv", "label_colors.txt", "labelmap.txt"])
def test_a_palette_in_the_source_is_found(source: Path, data: Path, file: str) -> None:
    truth = write_coloured(source)
    (source / file).write_text(PALETTE_TEXTS[file])
    assert import_source(source, data).format == "colour-masks"
    np.testing.assert_array_equal(mask_of(items(data)["a"]), truth)


def test_lists_of_masks_in_colours(source: Path, data: Path) -> None:
    truth = write_coloured(source)
    (source / "train.txt").write_text("images/a.png masks/a.png\n")
    with pytest.raises(ConfigError, match="--palette FILE"):
        import_source(source, data)
    (source / "label_colors.txt").write_text(PALETTE_TEXTS["label_colors.txt"])
    report = import_source(source, data)
    assert (report.format, report.classes_from) == ("paired-list", "label_colors.txt")
    np.testing.assert_array_equal(mask_of(items(data)["a"]), truth)


def test_without_a_palette_the_error_lists_the_colours(source: Path, data: Path) -> None:
    write_coloured(source)
    with pytest.raises(ConfigError, match=r"colours .*70 130 180.*--palette FILE"):
        import_source(source, data)


def test_classes_of_several_colours_and_palette_images(source: Path, data: Path, tmp_path: Path) -> None:
    photo(source / "images" / "a.png")
    indices = values(2, [0, 1, 2])
    save(source / "masks" / "a.png", indices, [(9, 9, 9), (1, 2, 3), (4, 5, 6)])
    (tmp_path / "p.txt").write_text("9 9 9 ground\n1 2 3 lane\n4,5,6,lane\n")
    import_source(source, data, read={"palette": str(tmp_path / "p.txt"), "images": "images", "masks": "masks"})
    np.testing.assert_array_equal(mask_of(items(data)["a"]), indices > 0)


def test_colours_of_blurred_edges_are_replaced_and_counted(source: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(PALETTE_TEXTS["palette.json"])
    truth = write_coloured(source)
    rng = np.random.default_rng(1)
    colours = np.array([colour for _, colour in PALETTE])[np.where(truth == 255, 3, truth)]
    noise = rng.integers(-9, 10, colours.shape)
    blurred = np.clip(colours + noise, 0, 255).astype(np.uint8)
    save(source / "masks" / "a.png", blurred)
    n_different = int((blurred != colours).any(2).sum())
    options = {"palette": str(tmp_path / "p.json"), "tolerance": 9}
    report = import_source(source, data, read=options)
    np.testing.assert_array_equal(mask_of(items(data)["a"]), truth)
    assert f"pixels of a colour near one of the palette, given that class: {n_different}" in report.notes
    write_coloured(source, "b")
    report = import_source(source, data, read=options | {"tolerance": 5}, replace=True)
    assert [(Path(name).name, "not in the palette" in reason) for name, reason in report.skipped] == [("a.png", True)]


def test_a_colour_that_is_not_in_the_palette(source: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(PALETTE_TEXTS["palette.json"])
    write_coloured(source)
    image = np.broadcast_to(np.uint8([0, 0, 142]), (HEIGHT, WIDTH, 3)).copy()
    image[2:4, 5:10] = (255, 0, 170)
    save(source / "masks" / "a.png", image)
    with pytest.raises(DataError, match=r"masks/a\.png.*\(255, 0, 170\) on 10 pixels.*--tolerance"):
        import_source(source, data, read={"palette": str(tmp_path / "p.json")})
    assert not data.exists()


@examples(40)
@given(
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=6, unique=True),
    tolerance=st.integers(0, 255),
    noise=st.sampled_from([3, 200]),
    seed=st.integers(0, 2**32 - 1),
)
def test_encoding_matches_brute_force(
    colours: list[tuple[int, int, int]], tolerance: int, noise: int, seed: int
) -> None:
    palette = make_palette([(f"class {index}", colour) for index, colour in enumerate(colours)], "a test")
    rng = np.random.default_rng(seed)
    near = np.array(colours)[rng.integers(0, len(colours), (5, 7))] + rng.integers(-noise, noise + 1, (5, 7, 3))
    image = np.clip(near, 0, 255).astype(np.uint8)
    truth, n_replaced, n_unknown = np.zeros((5, 7), int), 0, 0
    for position in np.ndindex(5, 7):
        pixel = [int(part) for part in image[position]]
        distances = [
            (sum((p - q) ** 2 for p, q in zip(pixel, colour, strict=True)), index)
            for index, colour in enumerate(colours)
            if max(abs(p - q) for p, q in zip(pixel, colour, strict=True)) <= tolerance
        ]
        if not distances:
            n_unknown += 1
            continue
        truth[position] = min(distances)[1]
        n_replaced += min(distances)[0] > 0
    if n_unknown:
        with pytest.raises(DataError, match="not in the palette"):
            palette.encode(image, "mask.png", tolerance)
        return
    encoded, replaced, _ = palette.encode(image, "mask.png", tolerance)
    np.testing.assert_array_equal(encoded, truth)
    assert replaced == n_replaced


def test_large_masks_are_encoded_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    palette = read_palette("voc")
    indices = np.random.default_rng(0).integers(0, len(palette.colors), (40, 30))
    image = palette.colors[indices] ^ np.uint8(1)
    whole = palette.encode(image, "a.png", 1)
    monkeypatch.setattr("segpipe.data.formats.masks.palettes._BAND", 100)
    banded = palette.encode(image, "a.png", 1)
    np.testing.assert_array_equal(whole[0], palette.values[indices])
    np.testing.assert_array_equal(whole[0], banded[0])
    assert whole[1] == banded[1] == 1200


def test_palettes_known_by_name() -> None:
    voc = read_palette("voc")
    assert [voc.classes.classes[k].color for k in (0, 1, 15, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]
    assert voc.classes.ignore == (255,)
    assert tuple(voc.colors[-1]) == (224, 224, 192)
    streets = read_palette("cityscapes")
    assert len(streets.classes) == 19
    assert (streets.classes.names[13], streets.classes.classes[13].color) == ("car", (0, 0, 142))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "1 2 3 a\nnonsense 7\n", r"p\.txt:2: not a colour and a name"),
        ("p.txt", "1 2 300 a\n4 5 6 b\n", r"p\.txt:1: not a colour.*0 to 255"),
        ("p.txt", "1 2 3 a\n1 2 3 b\n", "each colour once"),
        ("p.txt", "1 2 3 a\n", "2 to 250 classes"),
        ("p.txt", "", "nothing"),
        ("p.json", '{"a": [1, 2]}', r"p\.json: a: not a colour"),
        ("p.json", '{"a": [1, 2', "cannot be read"),
        ("p.yaml", "a: [1, 2, true]\nb: [1, 2, 3]", "not a colour"),
        ("p.yaml", "[1, 2]", "not a valid palette"),
        ("p.json", "\xff\xfe", "cannot be read"),
    ],
)
def test_invalid_palettes(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_palette(str(tmp_path / name))


def test_a_missing_palette() -> None:
    with pytest.raises(ConfigError, match="voc or cityscapes"):
        read_palette("nowhere.json")
