"""dataset.yaml: the classes of a dataset, and the names of the channels of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from segpipe.data.yaml_document import read_yaml
from segpipe.errors import DataError, MissingError
from segpipe.json_models import validation_error
from segpipe.samples import ClassTable

_MAX_BYTES = 1 << 20
_CHANNELS = "channels"


@dataclass(frozen=True)
class DatasetFile:
    """The content of a dataset.yaml.

    classes: the class table.
    channels: the names of the channels of all images, in their order; empty if it names none.
    """

    classes: ClassTable
    channels: tuple[str, ...] = ()


def read_dataset_file(path: Path) -> DatasetFile:
    """Read a dataset.yaml.

    Raises:
        MissingError: if there is no such file.
        DataError: if it does not hold a valid class table, or if the names of channels are not texts that differ.
    """
    if not path.exists():
        raise MissingError(
            "the class table is missing",
            where=path,
            expected="classes: [{name, value, color: [r, g, b]}, ...], ignore: [values]",
            fix="write it, or import the data with `segpipe data import`, which writes it",
        )
    try:
        content = read_yaml(path, _MAX_BYTES)
        channels = content.pop(_CHANNELS, None) if isinstance(content, dict) else None
        return DatasetFile(ClassTable.model_validate(content), _channels(channels, path))
    except ValidationError as error:
        first = validation_error(error, path, ClassTable)
        raise DataError(first.what, where=path, found=first.found, expected=first.expected, fix=first.fix) from error


def format_dataset_file(classes: ClassTable, channels: tuple[str, ...] = ()) -> str:
    """Return the text of a dataset.yaml."""
    lines = ["classes:"]
    lines += [
        f"  - {{name: {_quoted(spec.name)}, value: {spec.value}, color: [{', '.join(map(str, spec.color))}]}}"
        for spec in classes.classes
    ]
    lines.append(f"ignore: [{', '.join(map(str, classes.ignore))}]")
    lines += ["overlapping: true"] if classes.overlapping else []
    lines += [f"{_CHANNELS}: [{', '.join(map(_quoted, channels))}]"] if channels else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**20).strip()


def _channels(value: object, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    names = [str(name) for name in value if isinstance(name, str | int)] if isinstance(value, list) else []
    if (
        not isinstance(value, list)
        or len(names) != len(value)
        or len({name.casefold() for name in names}) != len(names)
    ):
        raise DataError(
            "the names of channels are not valid", where=f"{path}: {_CHANNELS}", found=str(value)[:80],
            expected="a list of names that differ, such as [flair, t1]", fix="correct the list, or remove it",
        )  # fmt: skip
    return tuple(names)
