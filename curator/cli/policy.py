"""curator policy: list or print the policy presets."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli.output import show, table


def policy(
    name: Annotated[str | None, typer.Argument(help="Preset to print as TOML.")] = None,
) -> None:
    """List the policy presets, or print one.

    Example:

        curator policy raw-if-good > mine.toml
    """
    from curator.policy.model import PRESETS, load_policy

    if name is None:
        show(table([(p, load_policy(p).description) for p in PRESETS.names()], ["policy", ""]))
    else:
        show(PRESETS.text(name))
