"""The candidates of params.yaml follow the data where nobody chose them, and are told of where somebody did."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from segpipe.config import load_params
from segpipe.models.candidates import adapt_candidates, unsuitable_candidates
from segpipe.models.families import FAMILIES
from segpipe.workspace.create import template

KINDS = [*itertools.product((False, True), repeat=2)]
TEMPLATE = (template() / "params.yaml").read_text()


def families(root: Path) -> list[str]:
    return [candidate.family for candidate in load_params(root).candidates.values()]


@pytest.mark.parametrize("now", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_from_any_kind_of_data_to_any_other(tmp_path: Path, before: tuple[bool, bool], now: tuple[bool, bool]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEMPLATE)
    adapt_candidates(tmp_path, *before)
    there = path.read_text()
    assert adapt_candidates(tmp_path, *now) == (before != now)
    assert not adapt_candidates(tmp_path, *now)
    volumes, overlapping = now
    assert all(FAMILIES[name].dims in ((3 if volumes else 2), None) for name in families(tmp_path))
    assert ("kmeans" in families(tmp_path)) != overlapping
    assert unsuitable_candidates(tmp_path, *now) is None
    if before != now:
        path.write_text(there)
        told = unsuitable_candidates(tmp_path, *now)
        assert (told is None) == (before[0] == volumes and not overlapping), told
    adapt_candidates(tmp_path, False, False)
    assert path.read_text() == TEMPLATE, "back to images, all is as it was"


def test_settings_of_the_user_stay(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    own = TEMPLATE.replace("margin: 0.0}", "margin: 0.04}  # ours").replace(
        "max_megapixels:", "max_file_mb: 7\n  max_megapixels:"
    )
    path.write_text(own)
    assert adapt_candidates(tmp_path, True, True)
    assert load_params(tmp_path).gates.baseline is None
    now, then = yaml.safe_load(path.read_text()), yaml.safe_load(own)
    for content in (now, then):
        del content["candidates"], content["gates"]["baseline"]
    assert now == then
    adapt_candidates(tmp_path, False, False)
    assert path.read_text() == own


def test_candidates_of_the_user_stay_and_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    own = TEMPLATE.replace("  unet:\n", "  mine:\n")
    path.write_text(own)
    assert not adapt_candidates(tmp_path, True, False)
    told = unsuitable_candidates(tmp_path, True, False)
    assert path.read_text() == own
    assert told is not None
    assert told.startswith("params.yaml: mine, deeplabv3plus can't learn from volumes. Fix: ")
    assert "unet3d or " in told
    assert str(unsuitable_candidates(tmp_path, False, True)).startswith(
        "params.yaml: kmeans can't learn from images with classes that overlap"
    )
    assert unsuitable_candidates(tmp_path, False, False) is None
