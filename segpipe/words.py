"""Words for counts and lists, as messages and pages write them: "1 image", "a, b and 3 more"."""

from __future__ import annotations

from collections.abc import Iterable

_VOWELS = "aeiou"


def listed(items: Iterable[object], at_most: int = 6) -> str:
    """Join items with commas, and count those that do not fit: "a, b and 3 more".

    Args:
        items: What is listed, in order; each is shown as `str(item)`.
        at_most: How many items are shown, 1 or more.

    Returns:
        "a, b, c" if all are shown, "" if there are none.
    """
    names = [str(item) for item in items]
    shown, left = ", ".join(names[:at_most]), len(names) - at_most
    return f"{shown} and {left:,} more" if left > 0 else shown


def plural(number: int, noun: str) -> str:
    """Return the noun in the form that goes with a number: "image" for 1, "images" for 0 and 2.

    Args:
        number: How many there are.
        noun: A regular English noun in the singular, or words that end with one ("other size").

    Returns:
        The noun unchanged for 1, else with the ending s, es or ies.
    """
    if number == 1:
        return noun
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def counted(number: int, noun: str = "") -> str:
    """Return a whole number with its digits in groups of three, and a noun that agrees with it: "1 image", "12,000 images".

    Args:
        number: How many there are.
        noun: As in `plural`; the number stands alone if it is empty.
    """
    return f"{number:,} {plural(number, noun)}" if noun else f"{number:,}"
