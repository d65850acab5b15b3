"""The pages about families: the example runs as shown, and the table is up to date."""

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


def code_block(page: Path, language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def workspace(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A workspace with the example of the page."""
    page = repo_root / "docs" / "own-family.md"
    (tmp_path / "my_module.py").write_text(code_block(page, "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return parse_params(code_block(page, "yaml"))


def test_the_example_of_a_custom_network(workspace: Params) -> None:
    """It is built with its key, has at most thirty lines, and learns."""
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
    params = parse_params(code_block(repo_root / "docs" / "families.md", "yaml"))
    families = [candidate.family for candidate in params.candidates.values()]
    assert families == ["unet", "deeplabv3plus", "edges", "custom"]
    for candidate in params.candidates.values():
        family_config(candidate)


def shipped_families() -> dict[str, Family]:
    return {name: f for name, f in FAMILIES.items() if not f.config_at.startswith("tests.")}


def test_every_family_is_in_the_table(repo_root: Path) -> None:
    """Only names, summaries and papers are compared here, because the counts need each network to be built."""
    page = (repo_root / "docs" / "families.md").read_text()
    families = shipped_families()
    assert re.findall(r"^\| `(\w+)` \| (?:semantic|instance|volume)", page, re.MULTILINE) == list(families)
    assert all(f.summary in page and f.paper in page for f in families.values())


@pytest.mark.slow
def test_the_table_is_up_to_date(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script: dict[str, Any] = runpy.run_path(str(repo_root / "docs" / "write_families.py"), run_name="imported")
    monkeypatch.setitem(script["page"].__globals__, "FAMILIES", shipped_families())
    assert script["page"]() == (repo_root / "docs" / "families.md").read_text()
