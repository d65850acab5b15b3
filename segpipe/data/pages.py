"""One-file pages for people: readable in a dark room and in a bright one, without a network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segpipe.data.drawing import Picture
from segpipe.data.images import encode_png

_HERE = Path(__file__).parent / "templates"


def render(template: Path, **context: Any) -> str:
    """A page from a Jinja template that may extend `page.html`. Text is escaped; a name that the template misses is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**context)


def photo_uri(picture: Picture) -> str:
    """A picture as a `data:` address, JPEG: small, for photographs."""
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()


def drawing_uri(picture: Picture) -> str:
    """A picture as a `data:` address, PNG: exact, for masks."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()
