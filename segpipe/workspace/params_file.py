"""Edit params.yaml without losing the user's comments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segpipe.config import PARAMS_FILE


def set_params(root: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of params.yaml and keep its comments. The file is written only if the result is valid.

    Args:
        root: the workspace.
        changes: new values by dotted key, such as {"train.budget": "40s"}.

    Raises:
        ConfigError: a key or a value is not valid.
    """
    import io

    from ruamel.yaml import YAML

    from segpipe.config import parse_params
    from segpipe.files import write_text

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    path = root / PARAMS_FILE
    content = yaml.load(path)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    parse_params(buffer.getvalue())
    write_text(path, buffer.getvalue())
