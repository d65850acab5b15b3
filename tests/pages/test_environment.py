"""All pages are rendered in one environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from segpipe.pages.environment import TEMPLATES, render
from tests.pages.html_page import Page

PAGES = sorted(path.name for path in TEMPLATES.glob("*.html.j2") if path.name != "base.html.j2")


def test_a_missing_name_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="result"):
        render("suspects.html.j2")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_extends_the_base_and_has_no_style_of_its_own(name: str) -> None:
    text = (TEMPLATES / name).read_text()
    assert text.startswith('{% extends "base.html.j2" %}')
    assert "<style" not in text and "{% block title %}" in text


def test_every_class_name_has_a_rule_or_a_reader() -> None:
    """Class names that a template writes out, not those that it computes."""
    readers = "".join(path.read_text() for path in (*TEMPLATES.glob("*.css"), *TEMPLATES.glob("*.js")))
    names: set[str] = set()
    for path in TEMPLATES.rglob("*.j2"):
        static = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", " ", path.read_text())
        names |= {name for value in re.findall(r'class="([^"]*)"', static) for name in value.split()}
    assert len(names) > 50
    assert {name for name in names if not re.search(rf"\.{name}(?![\w-])", readers)} - {"c", "l", "v-"} == set()


def test_a_page_is_valid_html(tmp_path: Path) -> None:
    from segpipe.pages.suspects import SuspectList, render_suspects
    from tests.curation.test_suspects import CLASSES

    result = SuspectList(candidate="unet", images=3, found=0, suspects=[])
    (tmp_path / "page.html").write_text(render_suspects(result, [], CLASSES))
    page = Page(tmp_path / "page.html")
    assert page.raw.startswith("<!doctype html>") and "Suspected label errors" in page.text
