"""The attribute of shapes that holds their class, where a tool leaves its name to the user."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from segpipe.errors import ConfigError, DataError
from segpipe.words import listed

_MAX_SHOWN, _MAX_VALUES_SHOWN = 6, 4


def choose_attribute(
    attributes: Sequence[Mapping[str, str]], chosen: str | None, where: Path, words: str
) -> str | None:
    """Return the name of the attribute that holds the class; None if no shape has any.

    Args:
        attributes: the attributes of each shape, those without a value left out.
        chosen: the name that the user gives.
        where: the source, for errors.
        words: what an attribute is called in the tool.

    Raises:
        DataError: there are several, and the user has not chosen one.
        ConfigError: no shape has the attribute that the user has chosen.
    """
    values: dict[str, set[str]] = {}
    for shape in attributes:
        for name, value in shape.items():
            values.setdefault(name, set()).add(value)
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
    if len(values) > 1:
        names = sorted(values)
        found = "; ".join(f"{name}: {listed(sorted(values[name]), _MAX_VALUES_SHOWN)}" for name in names[:_MAX_SHOWN])
        commands = " or ".join(f"`--attribute {shlex.quote(name)}`" for name in names[:_MAX_SHOWN])
        raise DataError(f"more than one {words} could be the class", where=where, found=found, fix=f"add {commands}")
    return next(iter(values), None)
