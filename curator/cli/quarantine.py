"""`fsck`, `gc`, `quarantine`, `doctor`: check and repair a store."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.cli.trust import HARMLESS
from curator.core.errors import DamageError, StorageError

_quarantine = typer.Typer(
    help="List unusable samples and why they are unusable.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_Reason = Annotated[str | None, typer.Option("--reason", help="Only rows with this reason code.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(fsck)
    app.command()(gc)
    app.command()(doctor)
    _quarantine.command("list")(quarantine_list)
    _quarantine.command("show")(quarantine_show)
    _quarantine.command("retry")(quarantine_retry)
    app.add_typer(_quarantine, name="quarantine")


def fsck(
    dataset: o.WholeDataset,
    *,
    deep: Annotated[
        bool, typer.Option(help="Also hash every file, including the source shards."), HARMLESS
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Set damaged files aside, keep intact ones, list what is lost."
        ),
    ] = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Check that a store is complete and undamaged.

    DATASET may also be the folder of a study, of a run, or of an export. Exits with 12 on damage.
    Changes nothing unless --repair is given.

    Example:

        curator fsck shards/ --deep
    """
    from dataclasses import asdict

    from curator.steps.fsck import check
    from curator.steps.workspace import refuse_version

    refuse_version(dataset, "fsck")
    report = check(dataset, store, deep=deep, repair=repair)
    if json:
        show_json(asdict(report))
    else:
        for finding in report.repaired:
            show(f"REPAIR  {finding.where}: {finding.what}")
        for finding in report.notices:
            show(f"note    {finding.where}: {finding.what}")
        for finding in report.damage:
            show(f"DAMAGE  {finding.where}: {finding.what}")
        show(
            (
                f"{report.num_versions} versions, {report.num_files} decision files, "
                f"{report.num_samples:,} samples"
                if report.is_store
                else f"{report.num_files} files"
            )
            + f": {len(report.damage)} damaged"
        )
    if report.damage:
        raise DamageError(
            f"{len(report.damage)} damaged files or entries, first: {report.damage[0].what}",
            where=report.damage[0].where,
            hint="restore the files named above from a backup"
            + ("" if repair or not report.is_store else ", or set them aside with --repair"),
        )


def gc(
    dataset: o.WholeDataset,
    *,
    grace_days: Annotated[
        float, typer.Option(min=0, help="Keep younger files, which a writer may still need.")
    ] = 7.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed."), HARMLESS
    ] = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Remove leftover files that no version refers to.

    Facts and versions are never removed.

    Example:

        curator gc shards/ --dry-run
    """
    from curator.steps.gc import collect, find_garbage
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "gc")
    opened = open_workspace(dataset, store).store
    find = find_garbage if dry_run else collect
    found = list(find(opened, grace_days=grace_days))
    if json:
        show_json([{"path": g.path, "size_bytes": g.size_bytes, "why": g.why} for g in found])
        return
    for garbage in found:
        show(f"{garbage.size_bytes:>12,}  {garbage.path}  ({garbage.why})")
    verb = "could be removed" if dry_run else "removed"
    total = sum(garbage.size_bytes for garbage in found)
    show(f"{len(found)} files, {total:,} bytes {verb}")


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
    url: Annotated[str | None, typer.Option(help="URL of the server that captions.")] = None,
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

    from curator.steps.doctor import doctor as run
    from curator.steps.workspace import folder_of

    folder = folder_of(dataset)
    checks = list(
        run(
            (store or folder).resolve(),
            folder,
            scorer=scorer,
            captioner=captioner,
            model=model,
            url=url,
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
    found = counts(open_workspace(dataset, store))
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
    found = list(islice(rows(open_workspace(dataset, store), reason), limit))
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
