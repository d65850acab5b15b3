"""The validation page in a browser: without a network, light and dark, on a phone, by keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from segpipe.config import DataParams, SplitParams, ValidateParams
from segpipe.data.dataset import load_dataset
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.pages.validation import write_validation
from segpipe.validation.expectations import validate_manifest
from tests.data.test_faulty_files import copy_of, reencoded, values
from tests.worlds import faulty_data

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = folder / "data"
    split_of = faulty_data.write_valid(data, tuple("abcdefghijkl"))
    copy_of("a")(data, "copied")
    reencoded("b")(data, "seen-before")
    values((2, 77))(data, "strange")
    (data / "images" / "broken.png").write_bytes(b"")
    faulty_data.write_samples(data, split_of | {"copied": "test", "seen-before": "test", "strange": "train"})
    dataset = load_dataset(data)
    frame = build_manifest(dataset, DataParams(), SplitParams(), jobs=1)
    params = ValidateParams(quarantine=True)
    before = make_reference(frame, dataset.classes)
    findings, gx_result, drifts = validate_manifest(frame, make_fingerprint(frame, dataset.classes), params, before)
    write_validation(folder / "out", findings, gx_result, frame, data, params, DataParams(), drifts)
    return folder / "out" / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_fits_and_makes_no_requests(page: Path, browser: Any, scheme: str, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: requests.append(str(error)))
    tab.goto(page.as_uri())
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    background = [
        int(part) for part in re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    ]
    assert (sum(background[:3]) < 300) == (scheme == "dark")
    tab.close()


def test_the_images_of_a_pair_are_next_to_each_other(page: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    tab.goto(page.as_uri())
    alts = tab.eval_on_selector_all("#near_duplicates .finding img", "images => images.map(i => i.alt)")
    assert alts == [
        "image images/seen-before.jpg",
        "image images/b.png",
        "mask masks/seen-before.png",
        "mask masks/b.png",
    ]
    tops = tab.eval_on_selector_all(
        "#near_duplicates .finding img", "images => images.map(i => i.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1] < tops[2] == tops[3]
    tab.close()


def test_the_page_works_by_keyboard(page: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    tab.goto(page.as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the findings"
    focused = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        focused.add(tab.evaluate("document.activeElement.tagName"))
        if tab.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    assert {"A", "SUMMARY"} <= focused
    opened = "document.activeElement.parentElement.open"
    before = tab.evaluate(opened)
    tab.keyboard.press("Enter")
    assert tab.evaluate(opened) is not before
    tab.close()


def test_errors_come_first_and_quarantined_files_are_listed(page: Path) -> None:
    text = page.read_text()
    sections = re.findall(r'<details [^>]*id="(\w+)"', text)
    assert sections == ["readable_files", "known_classes", "no_copies_across_splits", "near_duplicates"]
    quarantined = text[text.index('id="left-out"') : text.index('id="drift-charts"')]
    assert re.findall(r"<td><code>(.*?)</code>", quarantined) == [
        "images/a.png",
        "images/broken.png",
        "images/copied.png",
        "images/strange.png",
    ]
    assert text.count('class="chart drift"') == 9
