"""`doctor`: check the machine before a long run."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.core.errors import StorageError


def doctor(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="The dataset to work on.")
    ] = ".",
    *,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", metavar="SCORER|MODEL", help="Scorer of the run, or its model."),
    ] = None,
    captioner: Annotated[str | None, typer.Option(help="Captioner of the run.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the captioner.")] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="URL of a server that captions; may be repeated.")
    ] = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Check machine, store and models before a long run.

    Exits with 20 or 23 if the run would fail. With --url the server is asked whether it is there;
    no image is sent.

    Example:

        curator doctor shards/
    """
    from dataclasses import asdict
    from pathlib import Path

    from curator.shards.places import is_remote
    from curator.steps.doctor import doctor as run
    from curator.steps.workspace import folder_of, split_spec
    from curator.store.store import only_read

    if store is not None and is_remote(store):
        raise only_read(store)
    folder = folder_of(dataset)
    checks = list(
        run(
            Path(store or folder).resolve(),
            split_spec(dataset)[0] if is_remote(dataset) else folder,
            scorer=scorer,
            captioner=captioner,
            model=model,
            urls=url or (),
        )
    )
    if json:
        show_json([asdict(check) for check in checks])
    else:
        show(table([(c.status, c.name, c.text) for c in checks], ["", "check", "found"]))
    failed = [check for check in checks if check.status == "fail"]
    if failed:
        code = 23 if any(check.name == "commit" for check in failed) else 20
        what = "; ".join(f"{check.name}: {check.text}" for check in failed)
        error = StorageError(what, reason="doctor.failed")
        error.code = code
        raise error
