"""Tests of the page at / in a real browser: an image is segmented and drawn, and every control works."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from segpipe.data.images import decode_image, encode_png
from segpipe.inference.segmenter import Segmenter
from segpipe.release.packaging.bento_server import Server
from tests.serving.test_server import wait_for_version
from tests.worlds.bundles import toy_image
from tests.worlds.served_bundles import point

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=30_000)

pytestmark = [pytest.mark.slow, pytest.mark.browser]

IMAGE = toy_image(9, 120, 160)
PNG = encode_png(IMAGE)
DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("stage").dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
PASTE = """([name, type, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
  window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
}"""
PIXELS = """(id) => {
  const canvas = document.getElementById(id);
  const { width, height } = canvas;
  return { width, height, data: [...canvas.getContext("2d").getImageData(0, 0, width, height).data] };
}"""


@pytest.fixture
def page(browser, served: tuple[Server, Path]) -> Iterator:
    """Open the page; the test fails if the browser's console shows an error."""
    point(served[1], 1)
    with httpx.Client(base_url=served[0].url, trust_env=False) as client:
        wait_for_version(client, "v0.1.0")
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto(served[0].url)
    expect(opened.locator("#legend li")).to_have_count(3)
    yield opened
    opened.close()
    assert not [text for text in errors if "status of 4" not in text], "errors in the console"


def drop(page, content: bytes = PNG, name: str = "cells.png", kind: str = "image/png", how: str = DROP) -> None:
    page.evaluate(how, [name, kind, base64.b64encode(content).decode()])


def pixels(page, canvas: str) -> np.ndarray:
    read = page.evaluate(PIXELS, canvas)
    return np.array(read["data"], np.uint8).reshape(read["height"], read["width"], 4)


def wait_until_shown(page, name: str = "cells.png") -> None:
    expect(page.locator("#caption")).to_contain_text(f"{name} ·")


@pytest.mark.parametrize("how", [DROP, PASTE], ids=["dropped", "pasted"])
def test_an_image_is_shown_with_its_classes(page, bundle: Path, how: str) -> None:
    drop(page, how=how)
    wait_until_shown(page)
    segmenter = Segmenter.from_bundle(bundle)
    ids = segmenter.predict(IMAGE).class_ids
    np.testing.assert_array_equal(pixels(page, "photo")[:, :, :3], IMAGE)
    fill = pixels(page, "fill")
    for index, spec in enumerate(segmenter.spec.classes.classes):
        expected = (0, 0, 0, 0) if index == 0 else (*spec.color, 255)
        assert (fill[ids == index] == expected).all(), spec.name
    shares = page.locator("#legend .share").all_text_contents()
    assert shares == [f"{100 * (ids == index).mean():.1f} %" for index in range(3)]
    edges = pixels(page, "edges")[:, :, 3] > 0
    assert 0 < edges.sum() < edges.size / 2 and not edges[ids == 0].any()


def test_opacity_outlines_and_single_classes(page) -> None:
    drop(page)
    wait_until_shown(page)
    page.locator("#opacity").fill("80")
    assert page.evaluate("document.getElementById('fill').style.opacity") == "0.8"
    assert page.locator("#opacity-value").text_content() == "80 %"
    page.locator("#outlines").uncheck()
    assert page.locator("#edges").is_hidden()
    nucleus = page.locator("#legend button").nth(2)
    assert nucleus.get_attribute("aria-pressed") == "true"
    before = pixels(page, "fill")
    nucleus.click()
    assert nucleus.get_attribute("aria-pressed") == "false"
    after = pixels(page, "fill")
    gone = (before[:, :, 3] > 0) & (after[:, :, 3] == 0)
    assert gone.any() and (before[gone][:, :3] == (86, 180, 233)).all()


def test_the_keyboard_is_enough(page) -> None:
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "example":
            break
    page.keyboard.press("Enter")
    wait_until_shown(page, "input-0.png")
    page.locator("#view").focus()
    page.keyboard.down("Space")
    assert page.evaluate("getComputedStyle(document.getElementById('fill')).visibility") == "hidden"
    page.keyboard.up("Space")
    assert page.evaluate("getComputedStyle(document.getElementById('fill')).visibility") == "visible"


def test_errors_are_shown(page) -> None:
    drop(page, b"these are words", "notes.txt", "text/plain")
    page.locator("#error").wait_for(state="visible")
    assert "is not an image" in page.locator("#error").text_content()
    drop(page, b"\0" * (3 << 20), "huge.png")
    expect(page.locator("#error")).to_contain_text("at most 1 MB")
    drop(page)
    wait_until_shown(page)
    assert page.locator("#error").is_hidden()


def test_an_image_that_browsers_cannot_show(page) -> None:
    import cv2

    deep = (toy_image(2, 40, 50, 1).astype(np.uint16) * 200)[:, :, 0]
    drop(page, cv2.imencode(".tiff", np.repeat(deep[:, :, None], 3, 2))[1].tobytes(), "deep.tiff", "image/tiff")
    wait_until_shown(page, "deep.tiff")
    photo = pixels(page, "photo")
    assert photo.shape == (40, 50, 4) and photo[:, :, 0].max() > 200 > 50 > photo[:, :, 0].min()


def test_the_mask_is_saved_as_the_server_writes_it(page, served: tuple[Server, Path], bundle: Path) -> None:
    drop(page)
    wait_until_shown(page)
    with page.expect_download() as waiting:
        page.locator("#save-mask").click()
    assert waiting.value.suggested_filename == "cells-mask.png"
    segmenter = Segmenter.from_bundle(bundle)
    saved = decode_image(Path(waiting.value.path()).read_bytes(), "saved", 1)[:, :, 0]
    np.testing.assert_array_equal(saved, segmenter.spec.classes.decode(segmenter.predict(IMAGE).class_ids))


def test_the_page_follows_the_live_model(page, served: tuple[Server, Path]) -> None:
    assert page.locator("#badge").text_content() == "v0.1.0 · unet"
    assert "0.710" in page.locator("#scores").text_content()
    assert page.locator("#gates li").get_attribute("data-verdict") == "pass"
    point(served[1], 2)
    with httpx.Client(base_url=served[0].url, trust_env=False) as client:
        wait_for_version(client, "v0.2.0")
    drop(page)
    expect(page.locator("#caption")).to_contain_text("model v0.2.0")
    expect(page.locator("#badge")).to_have_text("v0.2.0 · unet")


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [("light", 1280, 860), ("dark", 1280, 860), ("light", 390, 844)],
    ids=["light", "dark", "phone"],
)
def test_it_fits(browser, served: tuple[Server, Path], tmp_path: Path, scheme: str, width: int, height: int) -> None:
    """Nothing overflows horizontally. The screenshots are kept if SEGPIPE_PICTURES names a folder."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(served[0].url)
    expect(page.locator("#legend li")).to_have_count(3)
    pictures = Path(os.environ.get("SEGPIPE_PICTURES", tmp_path))
    page.screenshot(path=pictures / f"page-{scheme}-{width}-empty.png", full_page=True)
    drop(page)
    wait_until_shown(page)
    page.screenshot(path=pictures / f"page-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    page.close()
