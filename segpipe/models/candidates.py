"""The section `candidates` of params.yaml, and the data: as segpipe wrote it, it follows them; what a user wrote is left, and told of."""

from __future__ import annotations

import re
from pathlib import Path

from segpipe.config import PARAMS_FILE, load_params
from segpipe.files import write_text
from segpipe.models.families import FAMILIES
from segpipe.workspace.create import template

_SECTION = re.compile(r"^candidates:.*\n(?:[ #].*\n)+", re.MULTILINE)
"""Up to the empty line after it."""

_FOR_VOLUMES = """\
candidates:                # `segpipe families` lists what can stand here
  unet3d:
    family: unet3d
  segresnet:
    family: segresnet
  kmeans:                  # the classical baseline that a network has to beat
    family: kmeans
"""

_CLASSICAL = re.compile(r"^  kmeans:.*\n(?:    .*\n)+", re.MULTILINE)
_GATE = re.compile(r"^  baseline: (\{.*)$", re.MULTILINE)
_GATE_OFF = "  baseline: null           # no classical family tells classes that overlap; for others: "
_GATE_WAS = re.compile(f"^{re.escape(_GATE_OFF)}(.*)$", re.MULTILINE)


def adapt_candidates(root: Path, volumes: bool, overlapping: bool) -> bool:
    """Where `candidates:` stands as segpipe wrote it, make it what learns from such data: from images or volumes, with one class a
    pixel or with classes that overlap, which no classical family tells (the gate that asks for one is then off). Everything else is left
    as it is. True where something was changed."""
    path = root / PARAMS_FILE
    before = path.read_text()
    mine = _SECTION.search(before)
    if mine is None or mine[0] not in {_written(v, o) for v in (False, True) for o in (False, True)}:
        return False
    after = before[: mine.start()] + _written(volumes, overlapping) + before[mine.end() :]
    after = _GATE.sub(rf"{_GATE_OFF}\1", after) if overlapping else _GATE_WAS.sub(r"  baseline: \1", after)
    if after != before:
        write_text(path, after)
    return after != before


def unsuitable_candidates(root: Path, volumes: bool, overlapping: bool) -> str | None:
    """In one line, which candidates of params.yaml learn nothing from such data, and what to do; None where all do."""
    fitting = {f.name for f in FAMILIES.values() if f.takes(3 if volumes else 2, overlapping)}
    others = [name for name, c in load_params(root).candidates.items() if c.family in FAMILIES.keys() - fitting]
    if not others:
        return None
    kind = ("volumes" if volumes else "images") + (" with classes that overlap" if overlapping else "")
    return (
        f"{PARAMS_FILE}: {', '.join(others)} can't learn from {kind}. Fix: under `candidates`, name in their place "
        + " or ".join(name for name in FAMILIES if name in fitting)
    )


def _written(volumes: bool, overlapping: bool) -> str:
    """The section as segpipe writes it."""
    section = _SECTION.search((template() / PARAMS_FILE).read_text())
    assert section is not None
    text = _FOR_VOLUMES if volumes else section[0]
    return _CLASSICAL.sub("", text) if overlapping else text
