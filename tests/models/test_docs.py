"""The pages about families: the example runs as it stands, and the table is no older than the code."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from segpipe.config import Params, parse_params
from segpipe.models.registry import FAMILIES, Family, build_network, family_config


def block(page: Path, kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def workspace(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A workspace that holds the example as the page shows it."""
    page = repo_root / "docs" / "own-family.md"
    (tmp_path / "my_module.py").write_text(block(page, "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return parse_params(block(page, "yaml"))


def test_the_example_of_an_own_network(workspace: Params) -> None:
    """It is built with its key, has about thirty lines, and learns."""
    assert len(Path("my_module.py").read_text().strip().splitlines()) <= 30
    candidate = workspace.candidate("mine")
    network = build_network(candidate.family, family_config(candidate), 3, 2, seed=0)
    assert network[0].out_channels == 32
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = (images[:, 0] > images[:, 1]).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network.eval()(images).argmax(1) == labels).float().mean() > 0.9


def test_settings_on_the_page_of_families_are_valid(repo_root: Path) -> None:
    params = parse_params(block(repo_root / "docs" / "families.md", "yaml"))
    for candidate in params.candidates.values():
        family_config(candidate)


def without_those_of_tests() -> dict[str, Family]:
    return {name: f for name, f in FAMILIES.items() if not f.config_at.startswith("tests.")}


def test_every_family_is_in_the_table(repo_root: Path) -> None:
    """Its lines but for the counts, which cost a build each: `write_families.py --check` compares those, too."""
    page = (repo_root / "docs" / "families.md").read_text()
    ours = without_those_of_tests()
    assert re.findall(r"^\| `(\w+)` \| (?:semantic|instance|volume)", page, re.MULTILINE) == list(ours)
    assert all(f.summary in page and f.paper in page for f in ours.values())


@pytest.mark.slow
def test_the_table_is_no_older_than_the_code(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = runpy.run_path(str(repo_root / "docs" / "write_families.py"), run_name="imported")
    monkeypatch.setitem(made["page"].__globals__, "FAMILIES", without_those_of_tests())
    assert made["page"]() == (repo_root / "docs" / "families.md").read_text()
