"""The table of all commands, with their panel in `segpipe --help` and the examples at the end of their own help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

import typer
from typer.core import TyperCommand

from segpipe.cli import stages
from segpipe.cli.data import demo as data_demo
from segpipe.cli.data import export, formats, import_, stats, suspects
from segpipe.cli.data import inspect as data_inspect
from segpipe.cli.release import promote, schedule, serve, verify
from segpipe.cli.results import compare, gate, models, predict, report, run, tune
from segpipe.cli.start import demo, doctor, families, init


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    name: str
    function: Callable[..., None]
    examples: str
    """Examples, one per line."""
    cls: type[TyperCommand] = TyperCommand


START, RESULTS, RELEASE, STAGES = "Start", "Results", "Release", "Stages (called by dvc.yaml)"

DATA_COMMANDS = [
    Command("import", import_.data_import, import_.EXAMPLE, import_.ImportCommand),
    Command("inspect", data_inspect.data_inspect, data_inspect.EXAMPLE),
    Command("formats", formats.data_formats, formats.EXAMPLE),
    Command("export", export.data_export, export.EXAMPLE),
    Command("demo", data_demo.data_demo, data_demo.EXAMPLE),
    Command("stats", stats.data_stats, stats.EXAMPLE),
    Command("suspects", suspects.data_suspects, suspects.EXAMPLE),
]

COMMANDS = {
    START: [
        Command("init", init.init, init.EXAMPLE),
        Command("demo", demo.demo, demo.EXAMPLE),
        Command("families", families.families, families.EXAMPLE),
        Command("doctor", doctor.doctor, doctor.EXAMPLE),
    ],
    RESULTS: [
        Command("run", run.run, run.EXAMPLE),
        Command("gate", gate.gate, gate.EXAMPLE),
        Command("report", report.report, report.EXAMPLE),
        Command("compare", compare.compare, compare.EXAMPLE),
        Command("tune", tune.tune, tune.EXAMPLE),
        Command("models", models.models, models.EXAMPLE),
        Command("predict", predict.predict, predict.EXAMPLE),
    ],
    RELEASE: [
        Command("promote", promote.promote, promote.PROMOTE_EXAMPLE),
        Command("rollback", promote.rollback, promote.ROLLBACK_EXAMPLE),
        Command("serve", serve.serve, serve.EXAMPLE),
        Command("schedule", schedule.schedule, schedule.EXAMPLE),
        Command("verify", verify.verify, verify.EXAMPLE),
    ],
    STAGES: [
        Command("ingest", stages.ingest, "segpipe ingest"),
        Command("validate", stages.validate, "segpipe validate"),
        Command("prepare", stages.prepare, "segpipe prepare"),
        Command("plan", stages.plan, stages.PLAN_EXAMPLE),
        Command("train", stages.train, "segpipe train unet"),
        Command("evaluate", stages.evaluate, "segpipe evaluate unet"),
        Command("select", stages.select, "segpipe select"),
        Command("export", stages.export, "segpipe export"),
    ],
}


def register_commands(app: typer.Typer) -> None:
    """Add every command to the program, in the order of the table."""
    data = typer.Typer(help="Import, inspect and export labelled images.", no_args_is_help=True)
    for command in DATA_COMMANDS:
        _register(data, START, command)
    for panel, commands in COMMANDS.items():
        for command in commands:
            _register(app, panel, command)
    app.add_typer(data, name="data", rich_help_panel=START)


def _register(app: typer.Typer, panel: str, command: Command) -> None:
    epilog = "\n\n".join(f"[dim]Example:[/dim] {line}" for line in command.examples.splitlines())
    text = help_text(command.function)
    app.command(command.name, cls=command.cls, help=text, rich_help_panel=panel, epilog=epilog)(command.function)


def help_text(function: Callable[..., None]) -> str:
    """Return the docstring of a command with one line per paragraph and list item: typer prints line breaks as they are."""
    return re.sub(r"(?<!\n)\n(?!\n|- )", " ", inspect.getdoc(function) or "")
