"""Imports of damaged sources in a process with little memory: `python -m tests.worlds.mutation_trials KIND FIRST COUNT`."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

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
_MEMORY = 1 << 30
"""Bytes that a trial may allocate beyond what the process had before the first one."""


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
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        write_source(folder / "source", files)
        with_time_limit(_MAX_SECONDS)
        return _check(folder)
    except SegpipeError as error:
        return None if "\n" not in str(error) else f"{damage} of {name}: an error with several lines: {error}"
    except HangError:
        return f"{damage} of {name}: takes more than {_MAX_SECONDS} s\n{traceback.format_exc(limit=-6)}"
    except BaseException:
        return f"{damage} of {name}: {traceback.format_exc(limit=-6)}"
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


def write_source(folder: Path, files: Source) -> None:
    """Write the files of a source."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def with_time_limit(seconds: int) -> None:
    """Raise HangError after some seconds."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)


def _check(folder: Path) -> str | None:
    options = ImportOptions(yes=True)
    report = import_dataset(folder / "source", folder / "data", "auto", options, jobs=1, limits=LIMITS)
    dataset = load_dataset(folder / "data")
    for item in dataset.items:
        describe_item(item, folder / "data", dataset.classes, LIMITS)
    if not _any_labels(folder / "data"):
        return f"all background: {report.model_dump_json()[:2000]}"
    return _unreported(folder / "source", report)


def _any_labels(data: Path) -> bool:
    for path in sorted((data / "masks").iterdir()):
        try:
            if read_mask(path, LIMITS).any():
                return True
        except SegpipeError:  # validation reports it
            continue
    return False


def _unreported(source: Path, report: ImportReport) -> str | None:
    """Return what is wrong if an image is missing from the data, and the report does not say so."""
    lost = 2 - report.images
    if lost > 0 and not report.skipped and not report.unused and not report.notes:
        return "an image is missing, and nothing says so"
    return None


def limit_memory(extra: int) -> None:
    """Limit the address space of this process to what it has now, and some bytes more."""
    status = Path("/proc/self/statm").read_text(encoding="ascii")
    now = int(status.split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))


def main(kind: str, first: int, count: int) -> None:
    """Run trials, and print the number and the fault of each that fails as a line of JSON; the last line is `done`."""
    sys.setswitchinterval(0.05)
    warm_up: Any = run_trial(kind, -1)  # imports all libraries before memory is limited
    del warm_up
    limit_memory(_MEMORY)
    for number in range(first, first + count):
        print(json.dumps({"running": number}), flush=True)
        fault = run_trial(kind, number)
        if fault:
            print(json.dumps({"number": number, "fault": fault}), flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
