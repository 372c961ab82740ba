"""Parts of a preview: where samples go, texts on both sides of every limit, what would change."""

from __future__ import annotations

import base64

import streamlit as st

from curator.compare.marks import word_changes
from curator.policy.fields import field_of
from curator.policy.preview.values import Candidate, Line, Move, Moved, Preview
from curator.store.versions import ACTIONS, Version
from ui.shared import context, parts

_NONE = "\u2013"
_TAGS = {"removed": "del", "added": "ins"}


def scope(found: Preview) -> None:
    """Say how many samples were read."""
    shards = "1 shard" if found.num_shards == 1 else f"{found.num_shards:,} shards"
    if found.is_whole:
        said, kind = f"All {found.num_all_samples:,} samples in {shards}: exact.", ""
    else:
        said = (
            f"{found.num_samples:,} of {found.num_all_samples:,} samples: {len(found.shards):,} of "
            f"{shards}, sampled with seed {found.seed}. Counts below cover these only, as do "
            f"percentiles and duplicates."
        )
        kind = " cc-part"
    st.html(f'<p class="cc-scope{kind}">{parts.escaped(said)}</p>')


def summary(found: Preview, against: Version) -> None:
    """Draw the figures: how many samples change and where they go."""
    whole = "" if found.is_whole else f"about {found.estimate(found.num_changed):,} of all"
    share = found.num_changed / found.num_samples if found.num_samples else 0.0
    values: dict[str, object] = {"would change": found.num_changed}
    about = {"would change": whole or f"{share:.1%} of the samples"}
    for action in ACTIONS:
        values[action] = found.counts[action]
        about[action] = f"{found.counts_before[action]:,} in {against.name}"
    score, before = found.totals.mean_score, found.totals_before.mean_score
    values["mean score"] = _NONE if score is None else f"{score:.3f}"
    about["mean score"] = "not scored yet" if score is None else ""
    if before is not None:
        about["mean score"] = f"{before:.3f} in {against.name}"
    parts.metrics(values, about=about)


def flow(found: Preview, against: Version) -> None:
    """Draw two bars: the samples by action, before and after."""
    absent = found.num_samples - sum(found.counts_before.values())
    rows = [(against.name, {**found.counts_before, "absent": absent}), ("this", found.counts)]
    bars = "".join(
        f'<div class="cc-row"><span>{parts.escaped(name)}</span><div class="cc-bar">'
        + "".join(
            f'<i class="cc-{action}" style="flex: {num} 1 0" title="{action}: {num:,}"></i>'
            for action, num in counts.items()
            if num
        )
        + "</div></div>"
        for name, counts in rows
    )
    shown = [*ACTIONS, *(["absent"] if absent else [])]
    names = {"absent": f"not in {against.name}"}
    key = "".join(
        f'<span><i class="cc-dot cc-{action}"></i>{parts.escaped(names.get(action, action))}</span>'
        for action in shown
    )
    st.html(f'<div class="cc-flow">{bars}<div class="cc-key">{key}</div></div>')


# -- limits ---------------------------------------------------------------------------------------


def line(found: Line) -> None:
    """Draw one limit with the texts on both sides of it."""
    counts = f"{found.num_inside:,} texts pass all rules, {found.num_outside:,} fail this one"
    if found.num_missing:
        counts += f", {found.num_missing:,} of them have no value"
    st.html(
        f'<div class="cc-limit"><b>{parts.escaped(_limit(found))}</b>'
        f"<span>{parts.escaped(counts)}</span></div>"
    )
    nearest = "" if found.bound == "flags" else "nearest to the limit"
    left, right = st.columns(2, gap="medium")
    with left:
        _edge("Out", nearest, found.outside, found, kind="out")
    with right:
        _edge("In", nearest, found.inside, found, kind="in")


def _limit(found: Line) -> str:
    source = {"any": "", "alt_text": " of alt texts", "generated": " of generated captions"}
    whose = source.get(found.source, f" of {found.source}")
    if found.bound == "flags":
        return f"{found.rule}: {field_of(found.field).label}{whose}"
    row = field_of(found.field)
    value = "no value yet" if found.limit is None else f"{found.limit:.5g} {row.unit}".rstrip()
    sign = "≥" if found.bound == "min" else "≤"
    share = "" if found.percentile is None else f" (percentile {found.percentile:g})"
    return f"{found.rule}: {row.label}{whose} {sign} {value}{share}"


def _edge(name: str, about: str, shown: tuple[Candidate, ...], found: Line, *, kind: str) -> None:
    head = f'<div class="cc-edge cc-{kind}"><b>{name}</b><span>{about}</span></div>'
    body = "".join(_candidate(one, found) for one in shown)
    none = '<div class="cc-small">no text on this side</div>'
    st.html(f'{head}<div class="cc-grid">{body}</div>{"" if body else none}')


def _candidate(one: Candidate, found: Line) -> str:
    if found.bound == "flags":
        value = ", ".join(one.flags) or "no flags"
    else:
        value = _NONE if one.value is None else f"{one.value:.5g}"
    whose = "" if one.source == found.source else one.source  # shown above already
    meta = (
        f'<div class="cc-meta"><b>{parts.escaped(value)}</b>'
        f"<span>{parts.escaped(whose)}</span></div>"
    )
    say = f'<div class="cc-say" dir="auto">{parts.escaped(one.text)}</div>'
    return f"<figure>{_picture(one.shard, one.row, 256)}{meta}{say}</figure>"


def _picture(shard: str, row: int, side_px: int) -> str:
    data = base64.b64encode(context.thumbnail(shard, row, side_px)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'


# -- changes --------------------------------------------------------------------------------------


def title_of(move: Move, against: Version) -> str:
    """Return a transition in words, with its count."""
    before = f"not in {against.name}" if move.before is None else move.before
    way = f"{move.after}, another text" if move.before == move.after else f"{before} → {move.after}"
    return f"{way} ({move.num_samples:,})"


def moves(found: Move) -> None:
    """Draw example samples of one transition, with their texts before and after."""
    body = "".join(_moved(one) for one in found.examples)
    st.html(f'<div class="cc-grid cc-wide">{body}</div>')


def _moved(one: Moved) -> str:
    scores = " → ".join(
        _NONE if score is None else f"{score:.3f}" for score in (one.score_before, one.score_after)
    )
    words = " ".join(
        f"<{_TAGS[kind]}>{parts.escaped(said)}</{_TAGS[kind]}>"
        if kind in _TAGS
        else parts.escaped(said)
        for kind, said in word_changes(one.text_before or "", one.text_after or "")
    )
    meta = (
        f'<div class="cc-meta"><b>{parts.escaped(scores)}</b>'
        f"<span>{parts.escaped(one.because)}</span></div>"
    )
    say = f'<div class="cc-say" dir="auto">{words}</div>'
    return f"<figure>{_picture(one.shard, one.row, 384)}{meta}{say}</figure>"
