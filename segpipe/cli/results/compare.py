"""`segpipe compare`: compare two versions, revisions or experiments on the same test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Json, Open, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.pages.comparison.result import ComparisonResult
    from segpipe.pages.components.forest import ForestRow

_SIDE = (
    "The first model: a version (v0.1.0), a Git revision, a DVC experiment, or . for the workspace. Its winner is compared; "
    "append :CANDIDATE for another candidate."
)
MAX_P_VALUE = 0.05
"""Largest p value at which the difference of a class or slice is printed."""

EXAMPLE = (
    "segpipe compare v0.1.0 .\nsegpipe compare v0.1.0 v0.2.0 --open\nsegpipe compare .:deeplabv3plus .:unet --json"
)


def compare(
    before: Annotated[str, typer.Argument(help=_SIDE, metavar="A")],
    after: Annotated[str, typer.Argument(help="The second model, named in the same way.", metavar="B")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the page. Default: reports/compare.html.", metavar="FILE")
    ] = None,
    open_it: Open = False,
    json: Json = False,
) -> None:
    """Compare model B with model A on the test images that both were scored on, and write a page about it.

    Nothing is trained or scored again.

    Exit codes:
    - 0: the models were compared, whatever the result
    - 3: their classes differ, or they share no test images
    - 6: a model does not exist, or cannot be fetched
    """
    from segpipe.config import load_params
    from segpipe.pages.comparison.page import write_comparison
    from segpipe.pages.comparison.result import as_json, compare_models, verdict_sentence
    from segpipe.pages.comparison.sides import load_side, match_images
    from segpipe.workspace.paths import Paths

    root = workspace_root()
    params = load_params(root).evaluate
    first, second = load_side(root, before), load_side(root, after)
    common = match_images(first, second)
    result = compare_models(common.before, common.after, params)
    page = out or Paths(root).comparison_page
    write_comparison(root, first, second, common, result, params, page)
    outcome = verdict_sentence(result, first.name, second.name)
    if json:
        compared = {"before": first.name, "after": second.name, "images": len(common.after.keys)}
        content = {"sentence": outcome, "compared": compared, "basis": common.sentence, "page": str(page)}
        print_json(content | as_json(result))
    else:
        typer.echo("\n".join([outcome, common.sentence, *_lines(result), str(page)]))
    if open_it:
        typer.launch(page.resolve().as_uri())


def _lines(result: ComparisonResult) -> list[str]:
    """Return a line for each class and slice whose difference is significant."""
    rows: list[tuple[str, Any]] = [
        ("class", row) for _, class_rows in (result.classes.groups if result.classes else []) for row in class_rows
    ]
    rows += [(name, row) for name, slice_rows in (result.slices.groups if result.slices else []) for row in slice_rows]
    significant = [(kind, row) for kind, row in rows if row.p is not None and row.p <= MAX_P_VALUE]
    return [f"  {_line(kind, row)}" for kind, row in significant]


def _line(kind: str, row: ForestRow) -> str:
    bounds = "" if row.low is None else f" ({row.low:+.3f} to {row.high:+.3f})"
    return f"{kind} {row.name}: {row.value:+.3f}{bounds}, p = {row.p:.2g}"
