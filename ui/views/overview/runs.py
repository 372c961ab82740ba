"""Runs of the page Overview: which commands run now, how far they are, and which ran before."""

from __future__ import annotations

import time

import streamlit as st

from curator.browse.runs import RunState, runs, unfinished
from curator.core.clock import duration, iso
from curator.store.store import Store
from ui.shared import parts, plots

_EVERY_SEC = 3
_SHOWN = 6
_REASONS = 3
_KINDS = {"running": "good", "done": "", "stopped": "warn", "died": "bad", "failed": "bad"}
_NEXT = {
    "stopped": "run the same command again to resume",
    "died": "its process has died; run the same command again to resume",
    "failed": "",
}


def show(store: Store) -> None:
    """Draw the runs that wrote to the store; refreshes itself while one is running."""
    parts.section("Runs", "commands that wrote to this store")
    is_busy = any(run.status == "running" for run in runs(store, limit=_SHOWN))
    st.fragment(_list, run_every=_EVERY_SEC if is_busy else None)(store)


def _list(store: Store) -> None:
    found = runs(store, limit=_SHOWN)
    if not found:
        parts.empty("No runs yet", "Start with `curator recaption SHARDS`.")
        return
    waiting = unfinished(store)
    if waiting and all(run.status != "running" for run in found):
        said = ", ".join(f"{maker} ({count:,} shards)" for maker, count in waiting.items())
        st.html(
            f'<div class="cc-small">{parts.badge_html("unfinished", "warn")} facts of '
            f"{parts.escaped(said)} are kept; run the same command again to finish</div>"
        )
    st.html("".join(map(_run, found)))


def _run(run: RunState) -> str:
    now = time.time()
    head = [
        parts.badge_html(run.status, _KINDS.get(run.status, "")),
        f"<b>{parts.escaped(run.verb)}</b>",
        f'<span class="cc-about">{parts.escaped(_asked(run))}</span>',
        f'<span class="cc-about cc-end">{iso(run.started).replace("T", " ").removesuffix("Z")}, '
        f"{parts.escaped(duration(run.seconds(now)))}</span>",
    ]
    said = [part for part in (_quarantined(run), run.error, _NEXT.get(run.status)) if part]
    below = f'<div class="cc-small">{parts.escaped("; ".join(said))}</div>' if said else ""
    open_stages = [stage for stage in run.stages if stage.share < 1]
    if open_stages and run.status != "done":
        below += plots.rows_html(
            [
                (stage.name, stage.share, f"{stage.done:,} of {stage.total:,}")
                for stage in open_stages
            ]
        )
    return f'<div class="cc-run"><div class="cc-head">{"".join(head)}</div>{below}</div>'


def _quarantined(run: RunState) -> str:
    """Return what it put into quarantine; "" if nothing, or if its record does not say."""
    if not run.quarantined:
        return ""
    total = sum(run.quarantined.values())
    most = [f"{reason} {count:,}" for reason, count in run.quarantined.items()][:_REASONS]
    return f"{total:,} put into quarantine ({', '.join(most)})"


def _asked(run: RunState) -> str:
    policy = run.options.get("policy")
    makers = run.options.get("makers") or ()
    shown = [f"policy {policy}"] if policy else []
    return " · ".join([*shown, *map(str, makers if isinstance(makers, list) else ())])
