"""`quarantine`: list and retry unusable samples."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.cli.trust import HARMLESS

_quarantine = typer.Typer(
    help="List unusable samples and why they are unusable.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_Reason = Annotated[str | None, typer.Option("--reason", help="Only rows with this reason code.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    _quarantine.command("list")(quarantine_list)
    _quarantine.command("show")(quarantine_show)
    _quarantine.command("retry")(quarantine_retry)
    app.add_typer(_quarantine, name="quarantine")


def quarantine_list(
    dataset: o.WholeDataset, *, store: o.StoreOption = None, json: o.Json = False
) -> None:
    """Count unusable samples by reason.

    Example:

        curator quarantine list shards/
    """
    from curator.core.reasons import about
    from curator.steps.quarantine import counts
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "quarantine list")
    found = counts(open_workspace(dataset, store, reads="all"))
    if json:
        show_json(dict(found))
        return
    rows = [
        (count, reason, "yes" if about(reason).retryable else "no", about(reason).text)
        for reason, count in found.most_common()
    ]
    show(table(rows, ["rows", "reason", "retry", "meaning"]) if rows else "the quarantine is empty")


def quarantine_show(
    dataset: o.WholeDataset,
    *,
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of rows to print."), HARMLESS] = 50,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Print quarantine rows: where each sample is and what is wrong with it.

    Example:

        curator quarantine show shards/ --reason image.truncated
    """
    from itertools import islice

    from curator.steps.quarantine import rows
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "quarantine show")
    found = list(islice(rows(open_workspace(dataset, store, reads="all"), reason), limit))
    if json:
        for row in found:
            show_json(row.to_json())
        return
    cells = [(r.reason, r.shard, r.key, r.offset, r.attempts, r.detail[:60]) for r in found]
    header = ["reason", "shard", "key", "offset", "attempts", "detail"]
    show(table(cells, header) if cells else "the quarantine is empty")


def quarantine_retry(
    dataset: o.WholeDataset,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code of the failures to retry.")],
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Mark failures to be retried by the next `recaption` or `score`.

    Example:

        curator quarantine retry shards/ --reason vlm.refusal
    """
    from curator.steps.quarantine import retry
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "quarantine retry")
    number = retry(open_workspace(dataset, store), reason)
    if json:
        show_json({"reason": reason, "reopened": number})
    else:
        show(f"{number} failures reopened; run the same recaption or score command again")
