"""The results of earlier predictions in a folder: continued, replaced, or a reason to refuse."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from segpipe.errors import ConfigError
from segpipe.files import read_json, write_json

Existing = Literal["refuse", "resume", "overwrite"]
"""What happens to earlier results in the folder: an error; files that are done are skipped; what the earlier run wrote is removed."""

SUMMARY_FILE = "predictions.json"
_JOURNAL_FILE = "predictions.partial.jsonl"
"""One line per finished file while a run is going on: the model first, then the rows."""
OUTPUTS = ("mask", "overlay", "instances")
"""The keys of a row that name files, relative to the folder."""

Row = dict[str, Any]


class RunRecord:
    """The record of a run in its folder, which a later run can continue.

    Args:
        out: The folder for the results.
        model: What identifies the model.
        names: The names of the outputs that will be written, without folder and ending.
        existing: What happens to earlier results.

    Attributes:
        done: The rows of earlier results that are kept, by the path of their input.

    Raises:
        ConfigError: The folder holds earlier results, and `existing` is "refuse"; or "resume", and they are another model's.
    """

    def __init__(self, out: Path, model: dict[str, Any], names: Iterable[str], existing: Existing) -> None:
        self._out, self._model = out, model
        earlier_model, rows = _read_record(out)
        self.done: dict[str, Row] = {}
        if existing == "refuse":
            self._check_nothing_is_there(rows, earlier_model is not None, names)
        elif existing == "overwrite":
            self._remove_outputs(rows)
        elif earlier_model not in (None, model):
            raise ConfigError(
                "holds the results of another model",
                where=out,
                found=_words(earlier_model),
                expected=_words(model),
                fix="choose another --out, or replace the results with --overwrite",
            )
        else:
            self.done = {row["file"]: row for row in rows if self._is_complete(row)}
        out.mkdir(parents=True, exist_ok=True)
        lines = [model, *self.done.values()]
        (out / _JOURNAL_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def add(self, row: Row) -> None:
        """Note that a file is finished."""
        with (self._out / _JOURNAL_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def finish(self, rows: list[Row]) -> None:
        """Write the summary of all files."""
        write_json(self._out / SUMMARY_FILE, {"model": self._model, "images": rows})
        (self._out / _JOURNAL_FILE).unlink(missing_ok=True)

    def _check_nothing_is_there(self, rows: list[Row], is_run: bool, names: Iterable[str]) -> None:
        fix = "choose another --out, continue with --resume, or replace the results with --overwrite"
        if is_run:
            raise ConfigError(
                "holds the results of an earlier run",
                where=self._out,
                found=f"{len(rows)} images in {SUMMARY_FILE}",
                expected="a new folder",
                fix=fix,
            )
        folder = self._out / "masks"
        taken = next(
            (name for name in names if any(folder.joinpath(f"{name}{end}").exists() for end in _ENDINGS)), None
        )
        if taken is not None:
            raise ConfigError(
                "a mask of this name exists already, and no run is recorded here",
                where=folder / taken,
                expected="a new folder",
                fix="choose another --out, or replace the file with --overwrite",
            )

    def _remove_outputs(self, rows: list[Row]) -> None:
        """Remove the files that an earlier run wrote, and folders that are then empty. Everything else stays."""
        for row in rows:
            for path in self._outputs(row):
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder == self._out:
                        break
                    with contextlib.suppress(OSError):  # not empty
                        folder.rmdir()
        (self._out / SUMMARY_FILE).unlink(missing_ok=True)

    def _is_complete(self, row: Row) -> bool:
        """Return whether a row has all its outputs, and they are not older than its input."""
        source, outputs = Path(row["file"]), self._outputs(row)
        if "error" in row or not source.exists() or not outputs or not all(path.exists() for path in outputs):
            return False
        return min(path.stat().st_mtime_ns for path in outputs) >= source.stat().st_mtime_ns

    def _outputs(self, row: Row) -> list[Path]:
        paths = [self._out / row[key] for key in OUTPUTS if isinstance(row.get(key), str)]
        return [path for path in paths if self._out.resolve() in path.resolve().parents]


_ENDINGS = (".png", ".tif", ".nii.gz")


def _read_record(out: Path) -> tuple[dict[str, Any] | None, list[Row]]:
    """Return the model and the rows of an earlier run, finished or not; (None, []) if there is none."""
    journal, summary = out / _JOURNAL_FILE, out / SUMMARY_FILE
    if journal.exists():
        lines = []
        for line in journal.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a run that was killed may leave half a line
                lines.append(json.loads(line))
        return (lines[0], lines[1:]) if lines else ({}, [])
    if summary.exists():
        content = read_json(summary)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            return content.get("model", {}), content["images"]
    return None, []


def _words(model: dict[str, Any] | None) -> str:
    lineage = (model or {}).get("lineage", {})
    return f"{(model or {}).get('candidate', 'an unknown model')} ({', '.join(f'{k} {str(v)[:12]}' for k, v in lineage.items())})"
