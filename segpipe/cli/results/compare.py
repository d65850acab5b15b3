"""`segpipe compare`: any two versions, revisions or experiments on the same test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.pages.comparison.result import ComparisonResult
    from segpipe.pages.components.forest import ForestRow

_SIDE = "A version (v0.1.0), a revision of Git, an experiment of DVC, or . for the workspace; with :CANDIDATE for another than the winner."

EXAMPLE = (
    "segpipe compare v0.1.0 .\nsegpipe compare v0.1.0 v0.2.0 --open\nsegpipe compare .:deeplabv3plus .:unet --json"
)


def compare(
    before: Annotated[str, typer.Argument(help=_SIDE, metavar="A")],
    after: Annotated[str, typer.Argument(help="What is held against it, named likewise.", metavar="B")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; by default reports/compare.html.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Json = False,
) -> None:
    """Is B better than A? Both on the test images that they share, with intervals; a page like the report.

    Nothing is trained or scored anew. Exit code 0 whatever the answer; 3: nothing to compare by; 6: a side can't be had.
    """
    from segpipe.config import load_params
    from segpipe.pages.comparison.page import write_comparison
    from segpipe.pages.comparison.result import as_json, compare_models, verdict_sentence
    from segpipe.pages.comparison.sides import load_side, match_images

    root = workspace_root()
    params = load_params(root).evaluate
    first, second = load_side(root, before), load_side(root, after)
    common = match_images(first, second)
    result = compare_models(common.before, common.after, params)
    page = out or root / "reports" / "compare.html"
    write_comparison(root, first, second, common, result, params, page)
    said = verdict_sentence(result, first.name, second.name)
    if json:
        told = {"before": first.name, "after": second.name, "images": len(common.after.keys)}
        print_json({"sentence": said, "compared": told, "basis": common.sentence, "page": str(page), **as_json(result)})
    else:
        typer.echo("\n".join([said, common.sentence, *_lines(result), str(page)]))
    if open_it:
        typer.launch(page.resolve().as_uri())


def _lines(result: ComparisonResult) -> list[str]:
    """Classes and slices whose difference is more than luck."""
    rows: list[tuple[str, Any]] = [
        ("class", row) for _, rows in (result.classes.groups if result.classes else []) for row in rows
    ]
    rows += [(trait, row) for trait, own in (result.slices.groups if result.slices else []) for row in own]
    shown = [(kind, row) for kind, row in rows if row.p is not None and row.p <= 0.05]
    return [f"  {_line(kind, row)}" for kind, row in shown]


def _line(kind: str, row: ForestRow) -> str:
    bounds = "" if row.low is None else f" ({row.low:+.3f} to {row.high:+.3f})"
    return f"{kind} {row.name}: {row.value:+.3f}{bounds}, p = {row.p:.2g}"
