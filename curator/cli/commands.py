"""All commands of `curator`. Imports nothing heavy (see tests/project/test_startup.py)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from curator.cli import demo, edits, quarantine
from curator.cli.calibrate import calibrate
from curator.cli.decide import decide
from curator.cli.diff import diff
from curator.cli.doctor import doctor
from curator.cli.export import export
from curator.cli.finetune import finetune
from curator.cli.fsck import fsck
from curator.cli.gc import gc
from curator.cli.index import index
from curator.cli.log import log
from curator.cli.merge import merge
from curator.cli.output import show
from curator.cli.pack import pack
from curator.cli.policy import policy
from curator.cli.pretrain import pretrain
from curator.cli.pull import pull
from curator.cli.push import push
from curator.cli.query import query
from curator.cli.recaption import recaption
from curator.cli.report import report
from curator.cli.score import score
from curator.cli.settings import SettingsGroup
from curator.cli.show import show_version
from curator.cli.study import study
from curator.cli.tag import tag
from curator.cli.ui import ui

# The order of `curator --help` and of docs/reference/cli.md; every command stands in one section.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Curate": ("recaption", "score", "calibrate", "decide", "policy", "edits"),
    "Look": ("log", "show", "diff", "query", "ui"),
    "Keep": (
        "pack",
        "index",
        "merge",
        "push",
        "pull",
        "export",
        "tag",
        "quarantine",
        "fsck",
        "gc",
        "doctor",
    ),
    "Prove": ("pretrain", "finetune", "study", "report"),
    "Demo": ("demo",),
}


class _Curator(SettingsGroup):
    """The root of the command line: its help lists the commands in sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, section by section."""
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one block of the help for each section."""
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width  # as typer leaves it: indent, gap, margin
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = [
                    (name.ljust(width), self.commands[name].get_short_help_str(limit))
                    for name in names
                ]
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_Curator,
    name="curator",
    help="Score, regenerate and version the captions of image-text shards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode=None,  # plain help: rich would cost 140 ms at every start
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from curator.core.package import tool_version

        show(f"caption-curator {tool_version()}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take the options that stand before any command."""


for command in (
    recaption, score, calibrate, decide, policy,
    log, diff, query, ui,
    pack, index, merge, push, pull, export, tag, fsck, gc, doctor,
    pretrain, finetune, study, report,
):  # fmt: skip
    app.command()(command)
app.command("show")(show_version)
for group in (edits, quarantine, demo):
    group.register(app)
