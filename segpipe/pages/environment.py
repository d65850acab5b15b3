"""One-file pages for people: readable in a dark room and in a bright one, without a network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.drawing import Picture
from segpipe.data.images import encode_png
from segpipe.words import counted

_HERE = Path(__file__).parent / "templates"
TOKENS = _HERE / "tokens.css"
"""Colours and letters of all pages, the report's too."""


def render(template: Path, **context: Any) -> str:
    """A page from a Jinja template that may extend `page.html` and import the macros of `charts.html`.

    Text is escaped; a name that the template misses is an error. Filters beside Jinja's own: `short`, `percent`, `count`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "percent": percent, "count": counted}
    return environment.get_template(template.name).render(**context)


def photo_uri(picture: Picture) -> str:
    """A picture as a `data:` address, JPEG: small, for photographs."""
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()


def drawing_uri(picture: Picture) -> str:
    """A picture as a `data:` address, PNG: exact, for masks."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()


def layer_uri(layer: npt.NDArray[np.uint8]) -> str:
    """A layer (H, W, 4), RGBA, to lie over a picture, as a `data:` address, PNG."""
    done, content = cv2.imencode(".png", np.ascontiguousarray(layer[:, :, [2, 1, 0, 3]]))
    assert done
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()


def short(value: float, digits: int = 4) -> str:
    """A number in few characters, with so many significant digits (three and a unit from 10,000 on): 0.25, 37, 12k, 30M."""
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.3g}{unit}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def percent(share: float) -> str:
    """A share as a percentage with two or three digits; what is there at all is never shown as 0 %."""
    if share == 0:
        return "0 %"
    if share < 1e-5:
        return "< 0.001 %"
    return f"{100 * share:.{1 if share >= 0.01 else 2 if share >= 0.001 else 3}f} %"
