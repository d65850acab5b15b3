"""The report in a real browser, as a file, without a network. If SEGPIPE_PICTURES names a folder, screenshots are saved there."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.browser.test_data_pages import OVERFLOW, PALE, Visit, visit  # noqa: F401  no error, no request
from tests.pages.test_report import full_report, plan  # noqa: F401  a report with every section
from tests.worlds.evaluated_workspace import evaluated, fingerprint, params, reader, serve, shards, workspace  # noqa: F401

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = [pytest.mark.browser]

UNNAMED = """() => [...document.querySelectorAll("button, input, select, svg[role=img], img, a")]
  .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.alt || e.labels?.length || e.closest("dialog")))
  .map((e) => e.outerHTML.slice(0, 80))"""
"""Elements that have no name for a screen reader."""


def shown(shot) -> list[str | None]:
    return [image.get_attribute("data-layer") for image in shot.locator("img").all() if image.is_visible()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_can_be_read(visit: Visit, full_report: Path, width: int, scheme: str) -> None:  # noqa: F811
    page = visit(full_report, width, scheme)
    assert page.evaluate(OVERFLOW) <= 0
    for details in page.locator("details").all():
        details.evaluate("e => { e.open = true; }")
    assert page.evaluate(OVERFLOW) <= 0, "nothing that opens is wider than the screen"
    assert page.evaluate(PALE) == []
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("[...document.images].every((i) => i.closest('dialog') || (i.complete && i.naturalWidth > 0))")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    if pictures := os.environ.get("SEGPIPE_PICTURES"):
        page.screenshot(path=Path(pictures) / f"report-{scheme}-{width}.png", full_page=True)


def test_the_gallery_by_keyboard(visit: Visit, full_report: Path) -> None:  # noqa: F811
    page = visit(full_report)
    ordinary, compared = page.locator(".shot").filter(has_text="% right").first, page.locator(".apart .shot").first
    assert shown(ordinary) == ["prediction"] and shown(compared) == ["who is right"]
    page.keyboard.press("4")
    assert shown(ordinary) == ["errors"] and shown(compared) == ["who is right"], "it has no such layer"
    page.keyboard.press("1")
    assert shown(ordinary) == ["image"] == shown(compared)
    page.locator("[data-all] input").nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert shown(ordinary) == ["truth"]

    compared.locator(".open").focus()
    page.keyboard.press("Enter")
    viewer, slider = page.locator("#viewer"), page.locator("#viewer input[type=range]")
    expect(viewer).to_be_visible()
    expect(slider).to_be_focused()
    sides = [s.locator("option:checked").text_content() for s in viewer.locator("select").all()]
    assert sides == ["unet", "v0.2.0"], "the two models' answers, side by side"
    seam = page.locator(".wipe")
    before = seam.evaluate("e => e.style.getPropertyValue('--at')")
    page.keyboard.press("ArrowRight")
    assert seam.evaluate("e => e.style.getPropertyValue('--at')") != before
    page.keyboard.press("Home")
    assert seam.evaluate("e => e.style.getPropertyValue('--at')") == "0%"
    key = viewer.locator("header b").text_content()
    page.keyboard.press("n")
    assert viewer.locator("header b").text_content() != key
    for _ in range(len(page.locator(".apart .shot").all()) - 1):
        page.keyboard.press("n")
    sides = [s.locator("option:checked").text_content() for s in viewer.locator("select").all()]
    assert sides == ["truth", "prediction"]
    viewer.locator("select").first.select_option(label="image")
    assert viewer.locator(".under").get_attribute("alt").startswith("image of")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def test_light_or_dark_by_choice(visit: Visit, full_report: Path) -> None:  # noqa: F811
    background = "getComputedStyle(document.body).backgroundColor"
    page = visit(full_report, scheme="light")
    light = page.evaluate(background)
    page.locator("#scheme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(background) != light and page.evaluate(PALE) == []
    page.keyboard.press("Enter")
    assert page.evaluate(background) == light


def test_printed_and_without_scripts(browser, full_report: Path) -> None:  # noqa: F811
    context = browser.new_context(java_script_enabled=False, offline=True, color_scheme="dark")
    page = context.new_page()
    page.goto(full_report.as_uri())
    assert shown(page.locator(".shot").first) == [
        "image",
        "truth",
        "unet",
        "v0.2.0",
        "errors of unet",
        "errors of v0.2.0",
        "who is right",
    ]
    expect(page.locator("#scheme")).to_be_hidden()
    context.close()
    page = browser.new_page(color_scheme="dark")
    page.goto(full_report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden() and page.locator("#slices table").is_visible()
    page.close()
