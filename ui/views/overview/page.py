"""Overview: the versions and their origin, the health of the data, and running commands."""

from __future__ import annotations

import streamlit as st

from curator.browse.lineage import lineage
from curator.core.clock import iso
from curator.store.versions import Version
from ui.shared import context, parts, plots
from ui.views.overview import health, runs
from ui.views.overview import lineage as overview_lineage


def page() -> None:
    """Draw the page."""
    ws = context.workspace()
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        parts.heading("Overview", "the versions, how they were made, and the health of the data")
    if not ws.store.numbers():
        parts.empty(
            "There is no version yet",
            "`curator recaption SHARDS` writes captions and commits a version; "
            "`curator decide SHARDS` commits one from existing texts.",
        )
        runs.show(ws.store)
        return
    with right:
        version = context.version()
    _figures(version)
    overview_lineage.show(lineage(ws.store), version)
    _how(version)
    runs.show(ws.store)
    health.show(version)


def _figures(version: Version) -> None:
    counts, totals = version.counts, version.totals
    scored = int(totals.get("num_scored", 0))
    texts = int(totals.get("num_texts", 0))
    share = (counts["captioned"] + counts["kept"]) / max(version.num_samples, 1)
    parts.metrics(
        {
            "samples": version.num_samples,
            "with a text": f"{share:.1%}",
            "texts": texts,
            "words per text": f"{totals.get('num_words', 0) / max(texts, 1):.1f}",
            "mean score": f"{totals['score_sum'] / scored:.3f}" if scored else "none",
        },
        about={
            "samples": f"in {len(version.shards):,} shard{'s' * (len(version.shards) != 1)}",
            "with a text": version.name,
            "mean score": f"{scored:,} scored" if scored else "not scored yet",
        },
    )


def _how(version: Version) -> None:
    policy = version.policy
    parts.section(f"How {version.name} was made", str(policy.get("description", "")))
    st.html(plots.outcome_html(version.counts, legend=True))
    known = {
        "made": iso(version.created).replace("T", " ").removesuffix("Z"),
        "policy": policy.get("name", ""),
        "texts": " or ".join(str(source) for source in policy.get("sources", ())),
        "pick": policy.get("pick", ""),
        "otherwise": policy.get("otherwise", ""),
        **{f"rule {rule['name']}": _rule(rule) for rule in policy.get("rule", ())},
        **{f"limit {name}": f"{value:.4f}" for name, value in sorted(version.thresholds.items())},
        "models": ", ".join(version.makers),
        "id": version.id[:16],
        "tool": f"caption-curator {version.tool_version}",
    }
    with st.expander("Policy and models"):
        parts.facts({name: value for name, value in known.items() if value})


def _rule(rule: dict[str, object]) -> str:
    limits = [
        f"{name.replace('_', ' ')} {rule[name]}"
        for name in ("min", "max", "min_percentile")
        if rule.get(name) is not None
    ]
    banned = rule.get("none_of")
    if isinstance(banned, list) and banned:
        limits.append("none of " + ", ".join(map(str, banned)))
    return f"{rule.get('field')} of {rule.get('source')}: {', '.join(limits)}"


context.run(page)
