"""Categories of annotation files as class tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.data.formats.annotations.categories import Category, number_classes
from segpipe.errors import DataError


@pytest.mark.parametrize(
    ("ids", "values", "ignore"),
    [
        ([1, 2], [1, 2], 255),
        ([0, 1], [1, 2], 255),
        ([7, 255], [7, 255], 65535),
        ([1, 90000], [1, 2], 255),
        ([-1, 4], [1, 2], 255),
    ],
)
def test_category_ids_become_pixel_values(ids: list[int], values: list[int], ignore: int) -> None:
    numbering = number_classes([Category(n, f"c{n}", (n % 9, 1, 2)) for n in ids], True, Path("x.json"))
    assert [spec.value for spec in numbering.classes.classes] == [0, *values]
    assert numbering.classes.names == ["background", *(f"c{n}" for n in ids)]
    assert numbering.classes.classes[1].color == (ids[0] % 9, 1, 2)
    assert numbering.values == dict(zip(ids, values, strict=True))
    assert numbering.classes.ignore == (numbering.ignore,) == (ignore,)


def test_categories_with_the_same_name_and_invalid_categories() -> None:
    where = Path("x.json")
    numbering = number_classes([Category(0, "cell"), Category(1, "cell"), Category(2, "Background")], False, where)
    assert numbering.classes.names == ["Background", "cell"]
    assert numbering.values == {2: 0, 0: 1, 1: 1}
    assert any("same name" in note for note in numbering.notes)
    for invalid in ([], [Category(2, "background")], [Category(n, f"c{n}") for n in range(1, 300)]):
        with pytest.raises(DataError, match="too few or too many"):
            number_classes(invalid, False, where)
