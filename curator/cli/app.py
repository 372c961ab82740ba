"""The `curator` command. Imports nothing heavy (see tests/test_startup.py)."""

from __future__ import annotations

import os
import sys

import typer

from curator.cli import demo, dense, edits, engine, inspect, shards, train, ui, upkeep, verdict
from curator.cli.output import escape_what_cannot_be_shown, leave_stdout_alone, run_app
from curator.cli.settings import SettingsGroup

app = typer.Typer(
    cls=SettingsGroup,
    name="curator",
    help="Score, regenerate and version the captions of image-text shards.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich would cost 140 ms at every start
    pretty_exceptions_enable=False,
)
for group in (engine, shards, inspect, edits, upkeep, train, dense, verdict, ui, demo):
    group.register(app)


def main() -> None:
    """Entry point of the console script."""
    # Arrow's own allocator keeps memory for every thread that ever read a table, so that a run
    # would grow with the number of its shards (benchmarks/memory.py). Read when Arrow starts.
    escape_what_cannot_be_shown()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    code = run_app(app, sys.argv[1:])
    leave_stdout_alone()
    sys.exit(code)
