"""`segpipe demo`: the whole workflow, from data to a running endpoint, in a workspace of its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import print_table
from segpipe.errors import GateBlocked, SegpipeError
from segpipe.files import write_bytes
from segpipe.progress import say

if TYPE_CHECKING:
    from segpipe.gates.selection import Selection
    from segpipe.release.run_summary import RunSummary

EXAMPLE = "segpipe demo && cd demo && segpipe report --open"

BUDGETS = ("1m", "2m", "4m")
"""Time for planning and training each candidate, so that the demo takes minutes on two cores. The longer ones are for slow or busy
machines."""


def demo(
    directory: Annotated[Path, typer.Argument(help="Folder of the demo workspace.", metavar="DIR")] = Path("demo"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every line of every stage.")] = False,
) -> None:
    """Run the whole workflow once on demo data: training, gates, release, and a request to a running endpoint.

    Takes some minutes. If it is run again, it does not repeat completed work.
    """
    run_demo(directory, verbose)


def run_demo(directory: Path, verbose: bool = False) -> None:
    """Create the demo workspace, train and promote a model, serve it once and send it an image. Completed steps are skipped.

    Args:
        directory: the folder of the workspace.
        verbose: print every line of every stage.

    Raises:
        GateBlocked: the gates block the release.
    """
    root = _workspace(directory)
    summary = _run(root, verbose)
    if summary.blocked:
        _show_scores(summary.selection)
        raise GateBlocked(
            f"the demo's winner did not pass: {summary.blocked}", fix=f"segpipe -C {directory} report --open"
        )
    answer = _request(root, summary.live or "")
    _show_scores(summary.selection)
    print(f"{summary.live} is live. It was served once, and segmented {answer['file']}:")
    print("  " + ", ".join(f"{share['name']} {share['share']:.1%}" for share in answer["classes"]))
    print(f"  overlay: {answer['overlay']}")
    _open_report(root)
    print("\nNext" + (":" if shutil.which("segpipe") else f" (after `. {Path(sys.prefix) / 'bin' / 'activate'}`):"))
    for command in (f"cd {directory} && segpipe report --open", "segpipe serve", 'segpipe schedule --cron "0 2 * * 1"'):
        print(f"  {command}")


def _open_report(root: Path) -> None:
    """Open the report in the browser if a person is at this terminal and there is a display; do nothing otherwise."""
    from segpipe.workspace.paths import Paths

    has_display = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stderr.isatty() and has_display:
        typer.launch(Paths(root).report.as_uri())


def _workspace(directory: Path) -> Path:
    """Create the demo workspace with its data, unless it is complete already."""
    from segpipe.workspace import pipeline
    from segpipe.workspace.create import create_workspace
    from segpipe.workspace.git import commit_staged, git
    from segpipe.workspace.lock import lock
    from segpipe.workspace.params_file import set_params
    from segpipe.workspace.paths import Paths

    created = create_workspace(directory)
    root = directory.resolve()
    with lock(root):
        if created:
            set_params(root, {"train.budget": BUDGETS[0]})
        if pipeline.data_state(root) in ("absent", "missing"):
            from segpipe.data.demo.write import write_demo

            write_demo(Paths(root).data)
            pipeline.add_data(root)
            git(root, "add", "params.yaml", "data.dvc", ".gitignore")
            commit_staged(root, "Demo data")
    return root


def _run(root: Path, verbose: bool) -> RunSummary:
    """Run the pipeline, with a longer budget if the machine is too slow for the first one."""
    from segpipe.retraining import run_pipeline
    from segpipe.workspace.params_file import set_params

    for longer in BUDGETS[1:]:
        try:
            return run_pipeline(root, promote="auto", verbose=verbose)
        except SegpipeError as error:
            if not (str(error).startswith("train.budget:") and "too short" in str(error)):
                raise
            set_params(root, {"train.budget": longer})
            say(f"this machine is slow or busy: each network trains for {longer} instead")
    return run_pipeline(root, promote="auto", verbose=verbose)


def _request(root: Path, version: str) -> dict[str, Any]:
    """Serve the live version on a free port and send it one test image.

    Returns:
        `file` (path of the image), `classes` (with their shares) and `overlay` (path of the overlay).
    """
    import httpx

    from segpipe.config import load_params
    from segpipe.release.packaging.bento_server import start_server
    from segpipe.serving.server import endpoint_settings, serve_target
    from segpipe.workspace.paths import Paths

    params, image = load_params(root), _test_image(root)
    stage = params.release.stage
    say(f"serving {version} once")
    settings = endpoint_settings(root, stage, params.serve)
    with start_server(serve_target(root, stage), settings) as server:
        upload = {"image": (image.name, image.read_bytes())}
        result, overlay_answer = (
            httpx.post(
                f"{server.url}/v1/segment", params={"format": format}, files=upload, trust_env=False, timeout=60
            ).raise_for_status()
            for format in ("json", "overlay")
        )
    overlay = Paths(root).predictions / f"{image.stem}-overlay.png"
    write_bytes(overlay, overlay_answer.content)
    return {"file": image.relative_to(root), "classes": result.json()["classes"], "overlay": overlay}


def _test_image(root: Path) -> Path:
    """Return the path of an image of the test split."""
    import pyarrow.parquet as pq

    from segpipe.workspace.paths import Paths

    paths = Paths(root)
    rows = pq.read_table(paths.splits, columns=["path", "split"]).to_pylist()
    return paths.data / next(row["path"] for row in rows if row["split"] == "test")


def _show_scores(selection: Selection | None) -> None:
    """Print the candidates' scores as a table, and the verdict of each gate."""
    assert selection is not None, "the demo's pipeline has a selection"
    rows = []
    for row in selection.ranking:
        name = f"{row.candidate} (winner)" if row.candidate == selection.winner else row.candidate
        bounds = f"{row.interval.low:.3f} to {row.interval.high:.3f}" if row.interval else ""
        rows.append([name, _number(row.test[selection.metric]), bounds, _number(row.val)])
    print_table(["candidate", f"test {selection.metric}", "interval", "validation"], rows)
    for verdict in selection.verdicts:
        print(verdict.sentence)
    print()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
