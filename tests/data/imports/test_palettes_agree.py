"""The palettes of all masks are compared, also of those that are not in the sample by which a source is recognised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import DataError
from tests.worlds.layouts import import_source, items, mask_of, photo, save, values

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
N = 120
"""More masks than the sample of recognition has."""


def write(source: Path, last: list[tuple[int, int, int]] | None, odd: int = 61, swapped: bool = True) -> None:
    """Write masks of a palette black, red, blue; one of them has another palette and, if `swapped`, the values that fit it."""
    for n in range(N):
        name = f"{n:03}.png"
        photo(source / "images" / name, n)
        mask = values(n, [0, 1, 2])
        if n == odd and swapped:
            mask = np.array([0, 2, 1], np.uint8)[mask]
        save(source / "masks" / name, mask, [BLACK, RED, BLUE] if n != odd else last)


def test_a_late_file_with_another_palette_is_refused_and_the_advice_works(source: Path, data: Path) -> None:
    write(source, [BLACK, BLUE, RED])
    with pytest.raises(
        DataError, match=r"value 1 is 255 0 0 in 000\.png and 0 0 255 in 061\.png.*120 palette images"
    ) as error:
        import_source(source, data)
    assert "--palette stored`" in str(error.value) and "--kind classes`" in str(error.value)
    assert not data.exists()
    report = import_source(source, data, read={"palette": "stored"})
    assert report.images == N
    counts = {key: np.bincount(mask_of(item).ravel(), minlength=3)[:3].tolist() for key, item in items(data).items()}
    blue_first = [np.bincount(values(n, [0, 1, 2]).ravel(), minlength=3)[[0, 2, 1]].tolist() for n in range(N)]
    assert [counts[f"{n:03}"] for n in range(N)] == blue_first, "classes are ordered by colour: blue before red"
    report = import_source(source, data, read={"kind": "classes"}, replace=True)
    assert report.images == N


@pytest.mark.parametrize(
    "last", [[BLACK, RED], [BLACK, RED, BLUE, (9, 9, 9)], [BLACK, RED, BLUE] + [(1, 2, 3)] * 200, None]
)
def test_palettes_that_agree_on_values_that_occur(
    source: Path, data: Path, last: list[tuple[int, int, int]] | None
) -> None:
    write(source, last, swapped=False)
    assert import_source(source, data).images == N


def test_entries_that_do_not_occur_may_differ(source: Path, data: Path) -> None:
    write(source, [BLACK, RED, BLUE, (9, 9, 9)], swapped=False)
    save(source / "masks" / "062.png", values(62, [0, 1, 2]), [BLACK, RED, BLUE, (7, 7, 7)])
    assert import_source(source, data).images == N


def test_a_class_table_decides(source: Path, data: Path) -> None:
    write(source, [BLACK, BLUE, RED])
    rows = "".join(f"  - {{name: c{v}, value: {v}, color: [{v}, 0, 0]}}\n" for v in range(3))
    (source / "dataset.yaml").write_text(f"classes:\n{rows}")
    assert import_source(source, data).images == N
