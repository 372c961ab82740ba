"""Draw the versions as a graph: sources of texts, versions decided from them, edited versions.

Graphviz draws it in the browser from DOT text (`st.graphviz_chart`, which needs no network). DOT
cannot switch between light and dark: its colours here are placeholders, and a style sheet maps each
to a colour of the page. Names of policies, tags and models reach DOT only through `label`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import streamlit as st

from curator.browse.lineage import Node, lines
from curator.store.versions import ACTIONS, Version
from ui.shared import context, parts, plots

NEWEST = 12
"""Maximum number of versions in the graph; older ones are in the select box."""

_NAMES = ("ground", "line", "soft", "accent", "good", *ACTIONS)
COLORS = {name: f"#0c00{number:02x}" for number, name in enumerate(_NAMES)}
"""Name of a colour in theme/parts.css -> its placeholder in DOT."""

_TAG = re.compile(r"<[^>]*>")
_NAME_CHARS, _SOURCE_CHARS, _TAG_CHARS = 26, 34, 14
_NUM_TAGS = 3
_BAR_WIDTH, _BAR_HEIGHT = 204, 6
_FRAME = """digraph {
rankdir=LR; bgcolor=transparent; nodesep=0.2; ranksep=0.75
node [shape=plain fontname=Helvetica fontsize=10]
edge [color="%(soft)s" arrowsize=0.55 penwidth=0.8]
"""


def show(nodes: Sequence[Node], chosen: Version) -> None:
    """Draw the newest versions and a button to select each."""
    newest = list(nodes[-NEWEST:])
    about = "from left to right: sources of texts, versions decided from them, edited versions"
    parts.section("Versions", about)
    with st.container(key="lineage", gap="small"):
        st.html(f"<style>{style()}</style>")
        st.graphviz_chart(dot(newest, chosen), alt=said(newest))
        st.html(plots.actions_html())
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html('<span class="cc-about">Select</span>', width="content")
            for node in reversed(newest):
                name = node.version.name
                st.button(
                    name,
                    key=f"show_{name}",
                    type="primary" if node.version.number == chosen.number else "secondary",
                    on_click=context.choose,
                    args=("v", name),
                )


def style() -> str:
    """Return CSS that maps the placeholder colours to those of the page, light or dark."""
    rules = [
        f'.st-key-lineage svg [{part}="{code}"]{{{part}:var(--cc-{name})}}'
        for name, code in COLORS.items()
        for part in ("fill", "stroke")
    ]
    return "".join(rules)


def said(nodes: Sequence[Node]) -> str:
    """Describe the graph in words, for screen readers."""
    shown = [f"{node.version.name} {_comes_from(node)}" for node in nodes]
    return f"Origin of {len(nodes)} versions: {'; '.join(shown)}"


def _comes_from(node: Node) -> str:
    if node.base is not None:
        return f"with edits on {node.base.name}"
    return f"from {' and '.join(node.sources.values())}" if node.sources else "from no text"


# -- DOT ------------------------------------------------------------------------------------------


def dot(nodes: Sequence[Node], chosen: Version) -> str:
    """Return the DOT text. Three columns keep it narrow, however long a chain of edits is."""
    found = lines(list(nodes))
    decided = [line[0] for line in found if line[0].base is None]
    edited = [node for line in found for node in line if node.base is not None]
    names = {key: name for node in decided for key, name in node.sources.items()}
    sources = {key: f"s{number}" for number, key in enumerate(names)}
    bases = {node.base.number: node.base for node in edited if node.base is not None}
    there = {node.version.number for node in nodes}
    missing = [bases[number] for number in sorted(bases.keys() - there)]
    beside = [node.version.name for node in edited]
    arrows = [(sources[key], node.version.name) for node in decided for key in node.sources]
    arrows += [(node.base.name, node.version.name) for node in edited if node.base is not None]
    body = [
        *(_node(sources[key], _source(name)) for key, name in names.items()),
        *(_node(base.name, _source(base.name)) for base in missing),
        *(
            _node(node.version.name, _version(node, is_chosen=node.version.number == chosen.number))
            for node in nodes
        ),
        _column(list(sources.values()), arrows),
        _column(
            [*(base.name for base in missing), *(node.version.name for node in decided)], arrows
        ),
        _column(beside, arrows),
        # From left to right, except for an edit of an edited version, which is above it.
        *(f"{a} -> {b}" if a in beside else f"{a}:e -> {b}:w" for a, b in arrows),
    ]
    return _FRAME % COLORS + "\n".join(body) + "\n}"


def _node(name: str, what: str) -> str:
    return f"{name} [label=<{what}>]"


def _column(names: Sequence[str], arrows: Sequence[tuple[str, str]]) -> str:
    """Stack nodes in this order; Graphviz needs an invisible edge for that."""
    edges = [f"{a} -> {b}" for a, b in pairwise(names) if (a, b) not in arrows]
    return f"{{rank=same; edge [style=invis]; {'; '.join([*names, *edges])}}}"


def label(text: str, most: int) -> str:
    """Return `text`, escaped and cut to `most` characters, for an HTML-like label of DOT."""
    shown = html.unescape(_TAG.sub(" ", parts.escaped(text)))
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    return html.escape(shown)


def _source(name: str) -> str:
    return (
        f'<TABLE BORDER="1" STYLE="ROUNDED,DASHED" COLOR="{COLORS["soft"]}" CELLBORDER="0" '
        f'CELLSPACING="0" CELLPADDING="6"><TR><TD>{label(name, _SOURCE_CHARS)}</TD></TR></TABLE>'
    )


def _version(node: Node, *, is_chosen: bool) -> str:
    version = node.version
    policy = label(str(version.policy.get("name", "")), _NAME_CHARS)
    scored = version.totals.get("num_scored", 0)
    score = f"score {version.totals['score_sum'] / scored:.3f}" if scored else "no score"
    width, color = (2, COLORS["accent"]) if is_chosen else (1, COLORS["line"])
    return (
        f'<TABLE BORDER="{width}" COLOR="{color}" BGCOLOR="{COLORS["ground"]}" STYLE="ROUNDED" '
        'CELLBORDER="0" CELLSPACING="0" CELLPADDING="3">'
        + _row(f"<B>{version.name}</B>&#160; {policy}", _colored(score, "soft"))
        + f'<TR><TD COLSPAN="2">{_bar(version.counts)}</TD></TR>'
        + _row(_counts(version.counts), _tags(node.tags))
        + "</TABLE>"
    )


def _row(left: str, right: str) -> str:
    return f'<TR><TD ALIGN="LEFT">{left}</TD><TD ALIGN="RIGHT">{right}</TD></TR>'


def _colored(text: str, color: str) -> str:
    return f'<FONT COLOR="{COLORS[color]}">{text}</FONT>'


def _bar(counts: Mapping[str, int]) -> str:
    """Return one bar divided by outcome; the smallest part stays visible."""
    total = max(sum(counts.values()), 1)
    widths = {
        action: max(2, round(_BAR_WIDTH * counts[action] / total))
        for action in ACTIONS
        if counts[action]
    }
    cells = "".join(
        f'<TD FIXEDSIZE="TRUE" WIDTH="{width}" HEIGHT="{_BAR_HEIGHT}" '
        f'BGCOLOR="{COLORS[action]}"></TD>'
        for action, width in (widths or {"line": _BAR_WIDTH}).items()
    )
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>{cells}</TR></TABLE>'
    )


def _counts(counts: Mapping[str, int]) -> str:
    shown = [
        f"{_colored('&#9632;', action)} {counts[action]:,}" for action in ACTIONS if counts[action]
    ]
    return "&#160; ".join(shown) or "no samples"


def _tags(tags: Sequence[str]) -> str:
    shown = [label(tag, _TAG_CHARS) for tag in tags[:_NUM_TAGS]]
    if len(tags) > _NUM_TAGS:
        shown.append(f"+{len(tags) - _NUM_TAGS}")
    return f"<B>{_colored('&#160; '.join(shown), 'good')}</B>" if shown else ""
