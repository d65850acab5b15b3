"""Adapt the section `candidates` of params.yaml to the dataset.

A section that is still as segpipe wrote it is replaced by one that suits the data. A section that a user has edited is left alone,
and unsuitable candidates are reported.
"""

from __future__ import annotations

import re
from pathlib import Path

from segpipe.config import PARAMS_FILE, load_params
from segpipe.files import write_text
from segpipe.models.families import FAMILIES
from segpipe.workspace.create import template

_SECTION = re.compile(r"^candidates:.*\n(?:[ #].*\n)+", re.MULTILINE)
"""The section, up to the empty line after it."""

_VOLUME_SECTION = """\
candidates:                # `segpipe families` lists what can stand here
  unet3d:
    family: unet3d
  segresnet:
    family: segresnet
  kmeans:                  # the classical baseline that a network has to beat
    family: kmeans
"""

_CLASSICAL_CANDIDATE = re.compile(r"^  kmeans:.*\n(?:    .*\n)+", re.MULTILINE)
_BASELINE_GATE = re.compile(r"^  baseline: (\{.*)$", re.MULTILINE)
_GATE_OFF = "  baseline: null           # no classical family learns classes that overlap; for others: "
_DISABLED_GATE = re.compile(
    r"^  baseline: null +# no classical family \w+ classes that overlap; for others: (.*)$", re.MULTILINE
)


def adapt_candidates(root: Path, volumes: bool, overlapping: bool) -> bool:
    """Replace default candidates by ones that can learn from the dataset.

    No classical family learns classes that overlap: for such a dataset the classical candidate is removed and the baseline gate is
    switched off. Everything else in params.yaml is left as it is, and so are candidates that a user has edited.

    Args:
        root: The workspace.
        volumes: True for a dataset of volumes, False for images.
        overlapping: True if the classes of the dataset overlap.

    Returns:
        True if params.yaml was changed.
    """
    path = root / PARAMS_FILE
    before = path.read_text()
    section = _SECTION.search(before)
    if section is None or section[0] not in {_default_section(v, o) for v in (False, True) for o in (False, True)}:
        return False
    after = before[: section.start()] + _default_section(volumes, overlapping) + before[section.end() :]
    after = (
        _BASELINE_GATE.sub(rf"{_GATE_OFF}\1", after) if overlapping else _DISABLED_GATE.sub(r"  baseline: \1", after)
    )
    if after != before:
        write_text(path, after)
    return after != before


def unsuitable_candidates(root: Path, volumes: bool, overlapping: bool) -> str | None:
    """Return a one-line message that names the candidates of params.yaml that cannot learn from the dataset, and the fix.

    Args:
        root: The workspace.
        volumes: True for a dataset of volumes, False for images.
        overlapping: True if the classes of the dataset overlap.

    Returns:
        The message, or None if all candidates can learn from the dataset.
    """
    suitable = {f.name for f in FAMILIES.values() if f.supports(3 if volumes else 2, overlapping)}
    unsuitable = [name for name, c in load_params(root).candidates.items() if c.family in FAMILIES.keys() - suitable]
    if not unsuitable:
        return None
    kind = ("volumes" if volumes else "images") + (" with classes that overlap" if overlapping else "")
    return (
        f"{PARAMS_FILE}: {', '.join(unsuitable)} cannot learn from {kind}. Fix: under `candidates`, replace them by "
        + " or ".join(name for name in FAMILIES if name in suitable)
    )


def _default_section(volumes: bool, overlapping: bool) -> str:
    """The section as segpipe writes it."""
    section = _SECTION.search((template() / PARAMS_FILE).read_text())
    assert section is not None
    text = _VOLUME_SECTION if volumes else section[0]
    return _CLASSICAL_CANDIDATE.sub("", text) if overlapping else text
