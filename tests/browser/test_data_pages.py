"""The pages about the data in a real browser, as files, without a network: layout, keyboard, and the download of marks."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segpipe.curation.suspects import find_suspects
from segpipe.data.demo.write import write_demo
from segpipe.pages.data_stats import write_stats_page
from segpipe.pages.suspects import SuspectList, rank_suspects, render_suspects
from tests.curation.test_suspects import CLASSES, kmeans, planted, readers  # noqa: F401  the same planted errors

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = [pytest.mark.browser]

Visit = Callable[..., object]
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
PALE = """() => {
  const parse = (color) => { // rgb(0..255), or color(srgb 0..1) for a mixed colour
    const values = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(") ? values.map((v, i) => (i < 3 ? v * 255 : v)) : values;
  };
  const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = parse(color).slice(0, 3).map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (parse(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const pale = [];
  for (const element of document.querySelectorAll("main :is(p, td, th, small, figcaption, summary, b, h2, button, .tag)")) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) pale.push([element.tagName, element.className, element.textContent.slice(0, 30), ratio]);
  }
  return pale;
}"""
"""Finds texts whose contrast is below 4.5 (WCAG 2.2, AA)."""


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    """Open a file without a network; the test fails on any error or request that the page makes."""
    contexts, faults = [], []

    def go(path: Path, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 860}, color_scheme=scheme, offline=True, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: faults.append(request.url[:99]))
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def stats_page(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    root = tmp_path_factory.mktemp("stats")
    write_demo(root / "data", images=12)
    shutil.copy(repo_root / "params.yaml", root)
    words = {"file": "images/cells-000.png", "found": "x" * 200, "expected": "y", "fix": "z"}
    findings = [{"expectation": "blank_images", "severity": "warning"} | words]
    (root / "reports" / "validation").mkdir(parents=True)
    (root / "reports" / "validation" / "findings.json").write_text(json.dumps({"passed": True, "findings": findings}))
    return write_stats_page(root, root / "reports" / "data.html")


@pytest.fixture(scope="module")
def suspects_page(tmp_path_factory: pytest.TempPathFactory, kmeans, planted: Path) -> Path:  # noqa: F811
    suspects, views = rank_suspects(find_suspects(kmeans, readers(planted)), CLASSES, 8)
    result = SuspectList(candidate="kmeans", images=40, found=len(suspects), suspects=suspects[:8])
    path = tmp_path_factory.mktemp("suspects") / "suspects.html"
    path.write_text(render_suspects(result, views, CLASSES), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_can_be_read(
    visit: Visit, stats_page: Path, suspects_page: Path, width: int, scheme: str
) -> None:
    for path in (stats_page, suspects_page):
        page = visit(path, width, scheme)
        assert page.evaluate(OVERFLOW) <= 0
        assert page.evaluate(PALE) == []
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def test_labels_can_be_switched_off_by_keyboard(visit: Visit, stats_page: Path) -> None:
    page = visit(stats_page)
    layer = page.locator(".look .labels").first
    expect(layer).to_be_visible()
    page.locator("#labels").focus()
    page.keyboard.press("Space")
    expect(layer).to_be_hidden()
    expect(page.locator(".look img").first).to_be_visible()
    summary = page.locator("#classes details summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#classes details table")).to_be_visible()


def test_suspects_are_reviewed_by_keyboard(visit: Visit, suspects_page: Path, tmp_path: Path) -> None:
    page = visit(suspects_page)
    current = page.locator(".sheet[aria-current]")
    expect(page.locator(".sheet")).to_have_count(8)
    expect(current).to_have_count(0)
    for key, rank_now in (("j", 1), ("j", 2), ("k", 1), ("k", 1), ("w", 2), ("r", 3), ("w", 4), ("k", 3), ("x", 3)):
        page.keyboard.press(key)
        assert current.get_attribute("data-rank") == str(rank_now), key
    expect(page.locator("#state")).to_have_text("2 of 8 marked, 1 wrong")
    page.locator(".sheet").nth(5).get_by_role("button", name="Label is wrong").click()
    expect(page.locator("#state")).to_have_text("3 of 8 marked, 2 wrong")
    assert current.get_attribute("data-rank") == "6"

    with page.expect_download() as waiting:
        page.locator("#json").click()
    waiting.value.save_as(tmp_path / "marks.json")
    rows = json.loads((tmp_path / "marks.json").read_text())
    assert [row["mark"] for row in rows] == ["wrong", "right", "", "", "", "wrong", "", ""]
    assert [row["rank"] for row in rows] == list(range(1, 9))
    with page.expect_download() as waiting:
        page.locator("#csv").click()
    waiting.value.save_as(tmp_path / "marks.csv")
    table = list(csv.DictReader((tmp_path / "marks.csv").open()))
    assert [(r["key"], r["mark"]) for r in table] == [(r["key"], r["mark"]) for r in rows]

    page.reload()
    expect(page.locator("#state")).to_have_text("3 of 8 marked, 2 wrong")
    expect(page.locator(".sheet").first).to_have_attribute("data-mark", "wrong")
