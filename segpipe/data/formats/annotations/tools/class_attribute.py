"""The attribute of shapes that holds their class, where a tool leaves its name to the user."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from segpipe.errors import ConfigError, DataError
from segpipe.words import listed

ONE_CLASS = "none"
_MAX_SHOWN, _MAX_VALUES_SHOWN = 6, 4


def choose_attribute(
    attributes: Sequence[Mapping[str, str]], chosen: str | None, where: Path, words: str, min_names: int
) -> str | None:
    """Return the name of the attribute that holds the class; None if no shape has any, or if all are of one class.

    Args:
        attributes: the attributes of each shape, those without a value left out.
        chosen: the name that the user gives; `none` if all shapes are of one class.
        where: the source, for errors.
        words: what an attribute is called in the tool.
        min_names: values that differ for all shapes, and for at least this many, look like names of shapes and not like classes.

    Raises:
        DataError: there are several, or the only one looks like names, and the user has not chosen.
        ConfigError: no shape has the attribute that the user has chosen.
    """
    values: dict[str, Counter[str]] = {}
    for shape in attributes:
        for name, value in shape.items():
            values.setdefault(name, Counter())[value] += 1
    if chosen == ONE_CLASS and chosen not in values:
        return None
    if chosen is not None:
        if chosen not in values:
            raise ConfigError(
                f"no shape has this {words}",
                where="--attribute",
                found=chosen,
                expected=" or ".join(sorted(values)[:_MAX_SHOWN]) or "none: the shapes have no attributes",
                fix="choose one of these" if values else "omit --attribute",
            )
        return chosen
    names = sorted(values)
    like_names = [name for name in names if min_names <= len(values[name]) == values[name].total()]
    if len(names) > 1 or like_names:
        found = "; ".join(f"{name}: {listed(sorted(values[name]), _MAX_VALUES_SHOWN)}" for name in names[:_MAX_SHOWN])
        commands = " or ".join(f"`--attribute {shlex.quote(name)}`" for name in names[:_MAX_SHOWN])
        what = (
            f"more than one {words} could be the class" if len(names) > 1 else f"the {words} may be a name, not a class"
        )
        fix = f"add {commands}, or `--attribute {ONE_CLASS}` if all shapes are of one class"
        raise DataError(what, where=where, found=found, fix=fix)
    return next(iter(values), None)
