"""The one Jinja environment of all pages, with the templates in `templates/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.pages.filters import FILTERS

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """Render a page: one HTML file with its style, scripts and pictures inside.

    Args:
        template: File name in `templates/`, such as "report.html.j2". It extends base.html.j2, may import the macros of `parts/`,
            and may use the filters of `segpipe.pages.filters`.
        context: The values that the template shows; text is escaped.

    Raises:
        jinja2.UndefinedError: The template uses a name that is not in `context`.
    """
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals["asset"] = _asset
    return environment


def _asset(name: str) -> Markup:
    """Read a style sheet or script of the templates folder; it is put into the page as it is."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704  a file of this package
