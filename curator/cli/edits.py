"""`edits`: list, undo and bulk-replace hand edits of captions, and make versions with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.cli.trust import HARMLESS
from curator.core.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from curator.edits.history import Edit
    from curator.steps.replace import ReplacePreview

_edits = typer.Typer(
    help="Edit captions by hand and commit the edits.", no_args_is_help=True, rich_markup_mode=None
)
_Who = Annotated[
    str | None, typer.Option("--who", help="Author of the edits; default: your user name.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    _edits.command("list")(edits_list)
    _edits.command("apply")(edits_apply)
    _edits.command("undo")(edits_undo)
    _edits.command("replace")(edits_replace)
    app.add_typer(_edits, name="edits")


def edits_list(
    dataset: o.WholeDataset,
    *,
    all_facts: Annotated[
        bool, typer.Option("--all", help="Include edits undone or superseded."), HARMLESS
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print."), HARMLESS] = 50,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """List the edits that are in effect, newest first.

    Example:

        curator edits list shards/
    """
    from dataclasses import asdict

    from curator.core.clock import iso
    from curator.edits.log import everything, history
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "edits list")
    opened = open_workspace(dataset, store, reads="all").store
    found = everything(opened)
    if not all_facts:
        shards = sorted({edit.shard for edit in found})
        counts = {edit.id for shard in shards for edit in history(opened, shard).heads()}
        found = [edit for edit in found if edit.id in counts]
    shown = found[:limit]
    if json:
        for edit in shown:
            show_json({"id": edit.id, **asdict(edit)})
        return
    rows = [
        (e.id, iso(e.created), e.who, e.action, e.key, _short(e.base_text), _short(_after(e)))
        for e in shown
    ]
    header = ["id", "when", "who", "action", "key", "before", "after"]
    show(table(rows, header) if rows else "there are no edits yet")
    if len(found) > len(shown):
        from curator.core.progress import say

        say(f"{len(found) - len(shown):,} older edits not shown; raise --limit to see them")


def edits_apply(
    dataset: o.Dataset,
    *,
    who: _Who = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Commit a new version: DATASET@VERSION with its edits applied.

    Edits whose text is not in this version are listed and skipped. Edited texts use the scores that
    exist. The same edits on the same version give the same version id.

    Example:

        curator edits apply shards/@v2
    """
    from dataclasses import asdict

    from curator.cli.decide import version_text
    from curator.core.stopping import stop_on_signals
    from curator.steps.apply_edits import apply, how_to_score
    from curator.steps.workspace import open_workspace

    ws = open_workspace(dataset, store)
    base = ws.version()
    ws.say_missing(base)
    with stop_on_signals() as stop:
        done = apply(ws.store, base, who=_name(who), stop=stop)
    version = done.version
    if json:
        show_json(
            {
                "version": {"number": version.number, "id": version.id, "counts": version.counts},
                "new": done.is_new,
                "edited": done.num_edited,
                "rejected": done.num_rejected,
                "accepted": done.num_accepted,
                "unscored": done.num_unscored,
                "stale": [{"id": edit.id, **asdict(edit)} for edit in done.stale],
            }
        )
        return
    for edit in done.stale:
        show(f"stale   {edit.id} of {edit.by}: {_short(edit.base_text)} is not in this version")
    show(
        f"{done.num_edited:,} texts edited, {done.num_rejected:,} rejected, "
        f"{done.num_accepted:,} accepted, {len(done.stale):,} edits stale"
    )
    if done.num_unscored:
        show(
            f"{done.num_unscored:,} edited texts have no score yet; to score them and commit again:"
        )
        show("\n".join(f"  {command}" for command in how_to_score(base, ws.spec, store)))
    show(version_text(ws, version, done.is_new))


def edits_undo(
    dataset: o.WholeDataset,
    edit: Annotated[
        str, typer.Argument(metavar="EDIT", help="Id of an edit or of a batch, from `edits list`.")
    ],
    *,
    who: _Who = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Undo one edit, or every edit of one `edits replace`.

    Undone edits stay in the log, with the name of the person who undid them.

    Example:

        curator edits undo shards/ 00000#12
    """
    from curator.edits.log import undo, undo_batch
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "edits undo")
    opened = open_workspace(dataset, store).store
    if "#" in edit:
        undone, refused = [undo(opened, edit, who=_name(who))], list[ConflictError]()
    else:
        undone, refused = undo_batch(opened, edit, who=_name(who))
    if json:
        show_json({"undone": len(undone), "refused": [str(error) for error in refused]})
        return
    for error in refused:
        show(f"kept    {error}")
    show(f"{len(undone):,} edits undone")


def edits_replace(
    dataset: o.Dataset,
    find: Annotated[str, typer.Argument(metavar="FIND", help="Text to find.")],
    put: Annotated[str, typer.Argument(metavar="PUT", help="Replacement text; may be empty.")],
    *,
    regex: Annotated[
        bool,
        typer.Option("--regex", help="Read FIND as a regular expression; $1 in PUT is group 1."),
    ] = False,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Match regardless of letter case.")
    ] = False,
    shard: Annotated[
        list[str] | None,
        typer.Option("--shard", help="Only this shard or pattern ('0000*'); repeat for more."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Record the edits; default: preview.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Examples to print."), HARMLESS] = 10,
    timeout: Annotated[float, typer.Option(help="Time limit of the search in seconds.")] = 60.0,
    who: _Who = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Find and replace in the texts of DATASET@VERSION, as edits.

    Previews the changes; --yes records them. `edits undo` undoes all of them at once.

    Example:

        curator edits replace shards/@v2 "a photo of " "" --yes
    """
    from curator.core.stopping import stop_on_signals
    from curator.core.text import as_typed
    from curator.steps.replace import Replacement, preview, replace_all, whole_shards
    from curator.steps.workspace import open_workspace

    find, put = as_typed(find, "FIND"), as_typed(put, "PUT")
    ws = open_workspace(dataset, store)
    version = ws.version()
    ws.say_missing(version, "their texts are not searched")
    where = whole_shards(version, shard or (), among={ref.name for ref in ws.shards})
    asked = Replacement(find=find, put=put, is_regex=regex, ignore_case=ignore_case)
    if not yes:
        found = preview(
            ws.store, version, asked, where=where, num_examples=limit, timeout_sec=timeout
        )
        show_json(_preview_json(found)) if json else show(_preview_text(found))
        return
    with stop_on_signals() as stop:
        done = replace_all(
            ws.store, version, asked, who=_name(who), stop=stop, where=where, timeout_sec=timeout
        )
    if json:
        refused = [str(error) for error in done.refused]
        show_json({"batch": done.batch, "edited": done.num_edited, "refused": refused})
        return
    for error in done.refused:
        show(f"kept    {error}")
    show(f"{done.num_edited:,} texts edited; to undo:")
    show(f"  {ws.command('edits undo', done.batch)}")
    show(f"next: {ws.command('edits apply', version=version.name)}")


def _preview_json(found: ReplacePreview) -> dict[str, object]:
    return {
        "samples": found.num_samples,
        "searched": found.num_searched,
        "would_change": found.num_texts,
        "would_be_empty_or_too_long": found.num_refused,
        "examples": [
            {
                "shard": draft.sample.shard,
                "key": draft.sample.key,
                "before": draft.base_text,
                "after": draft.new_text,
            }
            for draft in found.examples
        ],
    }


def _preview_text(found: ReplacePreview) -> str:
    lines = []
    for draft in found.examples:
        lines += [f"{draft.sample.key}", f"  - {draft.base_text}", f"  + {draft.new_text}"]
    looked_at = f"{found.num_searched:,} texts of {found.num_samples:,} samples"
    lines.append(f"{found.num_texts:,} of {looked_at} would change")
    if found.num_refused:
        lines.append(
            f"{found.num_refused:,} are left unchanged: they would become empty or too long"
        )
    if found.num_texts:
        lines.append("nothing has changed; add --yes to apply")
    return "\n".join(lines)


def _name(who: str | None) -> str:
    from getpass import getuser

    from curator.core.text import as_typed

    if who is not None:
        return as_typed(who, "--who")
    try:
        return getuser()
    except (KeyError, OSError) as error:  # a container whose user has no name
        raise UsageError(
            "your user name is unknown", hint="give a name with --who", reason="edits.who"
        ) from error


def _after(edit: Edit) -> str | None:
    return edit.new_text if edit.action == "edit" else None


def _short(text: str | None) -> str:
    limit = 40
    return "-" if text is None else text if len(text) <= limit else f"{text[: limit - 1]}…"
