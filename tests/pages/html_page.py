"""A parser of pages, for tests."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID_TAGS = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """The text, ids and addresses of a page. Fails if tags are not nested correctly."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.addresses, self.ids, self.hrefs = "", [], set(), []
        self._open: list[str] = []
        self.raw = path.read_text()
        self.feed(self.raw)
        self.close()
        assert not self._open, self._open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {values["id"]} if "id" in values else set()
        self.hrefs += [values["href"]] if "href" in values else []
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "srcset", "action", "data") and value
        ]
        if tag not in VOID_TAGS and "/>" not in (self.get_starttag_text() or ""):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text += data
