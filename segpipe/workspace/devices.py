"""Find the GPUs of this machine without loading torch."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess


def gpus() -> list[str]:
    """Return the GPUs that a stage may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [index for index, *_ in query_gpus()]


def query_gpus() -> list[tuple[str, str, str]]:
    """Return index, name and memory of each NVIDIA GPU, as text; an empty list if there is none or no driver."""
    if not (program := shutil.which("nvidia-smi")):
        return []
    command = [program, "--query-gpu=index,name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    rows = csv.reader(done.stdout.splitlines() if done.returncode == 0 else [], skipinitialspace=True)
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]
