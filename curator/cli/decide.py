"""curator decide: apply a policy to the facts. Also prints new versions for other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.cli.trust import HARMLESS
from curator.core.run_options import DEFAULTS, RunOptions

if TYPE_CHECKING:
    from curator.steps.workspace import Workspace
    from curator.store.versions import Version


def decide(
    dataset: o.WholeDataset,
    *,
    policy: o.Policy = "best",
    generator: Annotated[
        list[str] | None,
        typer.Option(
            "--generator", help="Prefer captions of this generator; repeat to give an order."
        ),
    ] = None,
    use_scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--use-scorer",
            help="Scorer whose scores to use, if there are several; repeat for rules that ask "
            "others.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", help="Language of the text checker, if there are several."),
        HARMLESS,
    ] = None,
    max_quarantine: o.MaxQuarantine = DEFAULTS.max_quarantine,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Apply a policy to the facts and commit a version.

    Takes seconds: no model is loaded.

    Example:

        curator decide shards/ --policy raw-if-good
    """
    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import checker_maker
    from curator.policy.model import load_policy
    from curator.steps.decide import MakerChoice, chosen_scorers
    from curator.steps.decide import decide as run
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.runs import open_run

    refuse_version(dataset, "decide")
    chosen = load_policy(policy)
    ws = open_workspace(dataset, store)
    choice = MakerChoice(
        generators=tuple(generator or ()),
        **chosen_scorers(ws, chosen, use_scorer or ()),
        checker=checker_maker(language).name if language else None,
    )
    run_options = RunOptions(max_quarantine=max_quarantine)
    options = {"dataset": dataset, "policy": chosen.name}
    with stop_on_signals() as stop, open_run(ws.store, "decide", options):
        version, is_new = run(ws, chosen, choice, run_options, stop=stop)
    if json:
        show_json({"version": version_json(version), "new": is_new})
    else:
        show(version_text(ws, version, is_new))


def version_json(version: Version) -> dict[str, object]:
    """Return a version as JSON-serializable fields, for --json."""
    return {
        "number": version.number,
        "id": version.id,
        "parent": version.parent,
        "counts": version.counts,
        "num_samples": version.num_samples,
        "totals": dict(version.totals),
        "policy": dict(version.policy),
        "thresholds": dict(version.thresholds),
    }


def version_text(ws: Workspace, version: Version, is_new: bool) -> str:
    """Return the closing lines of every command that makes a version."""
    counts = ", ".join(f"{count:,} {action}" for action, count in version.counts.items() if count)
    scored = version.totals.get("num_scored", 0)
    mean = f", mean score {version.totals['score_sum'] / scored:.3f}" if scored else ""
    head = "committed" if is_new else "nothing changed: the same decision is already"
    lines = [
        f"{head} {version.name} ({version.id[:12]}), policy {version.policy['name']}",
        f"  {version.num_samples:,} samples: {counts}{mean}",
    ]
    if unscored := int(version.totals.get("num_unscored", 0)):
        from curator.steps.apply_edits import scoring_command

        scoring = scoring_command(version, ws.spec, ws.store_option, "--generated")
        note = f"  {unscored:,} texts have no score; to score them (then decide again):"
        lines += [note, f"  {scoring}"]
    if cut := int(version.totals.get("num_truncated", 0)):
        lines.append(f"  {cut:,} texts were cut at the token limit")
    if version.number == 1:  # nothing to compare it with
        lines.append(f"next: {ws.command('show', version=version.name)}")
    else:
        diff = ws.command("diff", "--html", "diff.html", version=version.name)
        lines.append(f"next: {diff}")
    root = ws.dataset.root
    folder = f"{(root.resolve() if isinstance(root, Path) else root).name}-{version.name}"
    lines.append(f"next: {ws.command('export', folder, version=version.name)}")
    return "\n".join(lines)
