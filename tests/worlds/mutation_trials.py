"""Imports of damaged sources in a process with little memory: `python -m tests.worlds.mutation_trials KIND,KIND FIRST COUNT`."""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset
from segpipe.data.images import read_mask
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.data.manifest.describe import describe_item
from segpipe.errors import SegpipeError
from tests.worlds.mutation_seeds import SEEDS, Source
from tests.worlds.mutations import damaged

LIMITS = DataParams(max_megapixels=4, max_file_mb=16)
_MAX_SECONDS = 10
_MAX_GROWTH = 1 << 29
"""Bytes of address space that one trial may add."""
_MEMORY = 4 << 30
"""Bytes of address space that all trials may add; beyond that, an allocation fails."""
_FAILED_ALLOCATION = re.compile(
    r"(unable|failed) to allocate|out of memory|insufficient memory|MemoryError", re.IGNORECASE
)


class HangError(BaseException):
    """A trial takes too long."""


def run_trial(kind: str, number: int) -> str | None:
    """Import one damaged source and read everything that came in.

    Args:
        kind: the kind of the source, a key of `SEEDS`.
        number: the seed of the damage.

    Returns:
        What is wrong; None if the source was imported with labels, or refused by an error in one line.
    """
    files, name, damage = damaged(SEEDS[kind](), random.Random(f"{kind} {number}"))
    before = _address_space("VmPeak")
    fault = _fault_of(files)
    grown = _address_space("VmPeak") - before
    if fault is None and grown > _MAX_GROWTH:
        fault = f"allocates {grown >> 20} MiB"
    return fault and f"{damage} of {name}: {fault}"


def _fault_of(files: Source) -> str | None:
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        write_source(folder / "source", files)
        _set_alarm(_MAX_SECONDS)
        return _check(folder)
    except SegpipeError as error:
        text = str(error)
        return text if "\n" in text or _FAILED_ALLOCATION.search(text) else None
    except HangError:
        return f"takes more than {_MAX_SECONDS} s\n{traceback.format_exc(limit=-6)}"
    except BaseException:  # noqa: BLE001 - a bug of any kind is what this looks for
        return traceback.format_exc(limit=-6)
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


def write_source(folder: Path, files: Source) -> None:
    """Write the files of a source."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _set_alarm(seconds: int) -> None:
    """Raise HangError after some seconds."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)


def _check(folder: Path) -> str | None:
    options = ImportOptions(yes=True)
    report = import_dataset(folder / "source", folder / "data", "auto", options, jobs=1, limits=LIMITS)
    dataset = load_dataset(folder / "data")
    errors = [describe_item(item, folder / "data", dataset.classes, LIMITS)["error"] for item in dataset.items]
    errors += [reason for _, reason in report.skipped]
    if failed := [error for error in errors if error and _FAILED_ALLOCATION.search(error)]:
        return failed[0]
    if not _any_labels(folder / "data"):
        return f"all background: {report.model_dump_json()[:2000]}"
    return _unreported(report, len({path.stem for path in (folder / "data" / "images").iterdir()}))


def _any_labels(data: Path) -> bool:
    """Return whether a mask has a pixel other than 0, or cannot be read, which validation reports."""
    for path in sorted((data / "masks").iterdir()):
        try:
            if read_mask(path, LIMITS).any():
                return True
        except SegpipeError:
            return True
    return False


def _unreported(report: ImportReport, images: int) -> str | None:
    """Return what is wrong if the report has another number of images than the data, or does not explain a missing one."""
    if report.images != images:
        return f"{images} images, and {report.images} in the report"
    if images < 2 and not report.skipped and not report.unused and not report.notes:
        return "an image is missing, and nothing says so"
    return None


def _address_space(field: str) -> int:
    """Return the size of the address space of this process in bytes, now (VmSize) or at its largest (VmPeak)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{field}:")[1].split()[0]) << 10


def main(kinds: list[str], first: int, count: int) -> None:
    """Run trials of some kinds. Each one that fails is printed with its fault as a line of JSON; the last line is `done`."""
    for kind in kinds:
        run_trial(kind, -1)  # imports all libraries before memory is limited
    resource.setrlimit(resource.RLIMIT_AS, (_address_space("VmSize") + _MEMORY, resource.RLIM_INFINITY))
    for kind in kinds:
        for number in range(first, first + count):
            print(json.dumps({"running": f"{kind} {number}"}), flush=True)
            if fault := run_trial(kind, number):
                print(json.dumps({"kind": kind, "number": number, "fault": fault}), flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]))
