import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.words import counted, listed, plural


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (range(1, 8), "1, 2, 3 and 4 more"),
        ([str(i) for i in range(2003)], "0, 1, 2 and 2,000 more"),
    ],
)
def test_a_list_shows_the_first_items_and_counts_the_others(items, text):
    assert listed(items, at_most=3) == text


@given(st.lists(st.text("abc", min_size=1)), st.integers(1, 5))
def test_each_item_is_shown_or_counted(items, at_most):
    text = listed(items, at_most)
    shown, _, rest = text.partition(" and ")
    names = shown.split(", ") if items else []
    assert names == items[:at_most]
    assert len(names) + int(rest.removesuffix(" more") or 0) == len(items)


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("image", "images"),
        ("process", "processes"),
        ("class", "classes"),
        ("box", "boxes"),
        ("batch", "batches"),
        ("quantity", "quantities"),
        ("day", "days"),
        ("other size", "other sizes"),
    ],
)
def test_a_noun_agrees_with_its_number(noun, many):
    assert [plural(number, noun) for number in (0, 1, 2)] == [many, noun, many]


def test_a_count_has_its_digits_in_groups_and_its_noun_in_the_right_form():
    assert [counted(1, "image"), counted(0, "class"), counted(12_000, "image"), counted(1234)] == [
        "1 image",
        "0 classes",
        "12,000 images",
        "1,234",
    ]
