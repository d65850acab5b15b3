"""Default candidates of params.yaml are adapted to the data, and a user's are reported if they do not suit it."""

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
    text_before = path.read_text()
    assert adapt_candidates(tmp_path, *now) == (before != now)
    assert not adapt_candidates(tmp_path, *now)
    volumes, overlapping = now
    assert all(FAMILIES[name].dims in ((3 if volumes else 2), None) for name in families(tmp_path))
    assert ("kmeans" in families(tmp_path)) != overlapping
    assert unsuitable_candidates(tmp_path, *now) is None
    if before != now:
        path.write_text(text_before)
        message = unsuitable_candidates(tmp_path, *now)
        assert (message is None) == (before[0] == volumes and not overlapping), message
    adapt_candidates(tmp_path, False, False)
    assert path.read_text() == TEMPLATE, "adapted to images again, the file is the original"


def test_a_users_settings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    users_text = TEMPLATE.replace("margin: 0.0}", "margin: 0.04}  # ours").replace(
        "max_megapixels:", "max_file_mb: 7\n  max_megapixels:"
    )
    path.write_text(users_text)
    assert adapt_candidates(tmp_path, True, True)
    assert load_params(tmp_path).gates.baseline is None
    after, before = yaml.safe_load(path.read_text()), yaml.safe_load(users_text)
    for content in (after, before):
        del content["candidates"], content["gates"]["baseline"]
    assert after == before
    adapt_candidates(tmp_path, False, False)
    assert path.read_text() == users_text


def test_a_users_candidates_are_kept_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    users_text = TEMPLATE.replace("  unet:\n", "  mine:\n")
    path.write_text(users_text)
    assert not adapt_candidates(tmp_path, True, False)
    message = unsuitable_candidates(tmp_path, True, False)
    assert path.read_text() == users_text
    assert message is not None
    assert message.startswith("params.yaml: mine, deeplabv3plus cannot learn from volumes. Fix: ")
    assert "unet3d or " in message
    assert str(unsuitable_candidates(tmp_path, False, True)).startswith(
        "params.yaml: kmeans cannot learn from images with classes that overlap"
    )
    assert unsuitable_candidates(tmp_path, False, False) is None


def test_a_gate_that_older_versions_switched_off_is_switched_on_again(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEMPLATE)
    adapt_candidates(tmp_path, False, True)
    text = path.read_text()
    assert "no classical family learns classes" in text
    path.write_text(text.replace("no classical family learns classes", "no classical family tells classes"))
    assert adapt_candidates(tmp_path, False, False)
    assert path.read_text() == TEMPLATE
