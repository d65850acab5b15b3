"""`segpipe families`: list the model families."""

from __future__ import annotations

from segpipe.cli.common import Json, print_json, print_table

EXAMPLE = "segpipe families\nsegpipe families --json"


def families(json: Json = False) -> None:
    """List the model families, which can be candidates in params.yaml, with one line each."""
    from segpipe.models.registry import FAMILIES

    if json:
        fields = ("name", "kind", "task", "summary", "paper")
        rows = [
            {key: getattr(f, key) for key in fields} | {"settings": f.config.model_json_schema()["properties"]}
            for f in FAMILIES.values()
        ]
        print_json(rows)
        return
    print_table(
        ["family", "kind", "task", "what it is, and when to choose it", "source"],
        [[f.name, f.kind, f.task, f.summary, f.paper] for f in FAMILIES.values()],
    )
