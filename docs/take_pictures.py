"""Take the pictures of the documentation from a demo workspace: ``python docs/take_pictures.py demo``.

Needs Chromium on the machine, and a workspace in which something is live (`make demo` makes one).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from segpipe.config import load_params
from segpipe.release.packaging.bento_server import start_server
from segpipe.serving.server import endpoint_settings, serve_target

PICTURES = Path(__file__).resolve().parent / "pictures"
SIZE: ViewportSize = {"width": 1280, "height": 900}


def report(page: Page, root: Path) -> None:
    """The first screen of the report."""
    page.goto((root / "reports" / "report.html").as_uri())
    page.screenshot(path=PICTURES / "report.png")


def phone(page: Page, root: Path) -> None:
    """The same in the dark, on a phone."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto((root / "reports" / "report.html").as_uri())
    page.screenshot(path=PICTURES / "report-phone.png")


def endpoint(page: Page, root: Path) -> None:
    """The endpoint's page with an image on it."""
    params = load_params(root)
    stage = params.release.stage
    image = sorted((root / "data" / "images").iterdir())[2]
    with start_server(serve_target(root, stage), endpoint_settings(root, stage, params.serve)) as server:
        page.goto(server.url)
        page.locator("input[type=file]").set_input_files(image)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1500)
        page.screenshot(path=PICTURES / "page.png")


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    root = parser.parse_args().workspace.resolve()
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        for take in (report, phone, endpoint):
            page = browser.new_page(viewport=SIZE, device_scale_factor=1, color_scheme="light")
            take(page, root)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
