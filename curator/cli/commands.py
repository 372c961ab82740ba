"""All commands of `curator`. Imports nothing heavy (see tests/project/test_startup.py)."""

from __future__ import annotations

import typer

from curator.cli import demo, edits, finetune, inspect, pretrain, shards, study, ui, upkeep
from curator.cli.decide import decide
from curator.cli.policy import policy
from curator.cli.recaption import recaption
from curator.cli.score import score
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
for command in (recaption, score, decide, policy):
    app.command()(command)
for group in (shards, inspect, edits, upkeep, pretrain, finetune, study, ui, demo):
    group.register(app)
