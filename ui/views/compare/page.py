"""Compare: two versions side by side, as numbers, as examples, and in a blind rating.

A comparison reads both versions completely (40 s for a million samples). It is cached by their ids
for ten minutes; scores added meanwhile appear after that.
"""

from __future__ import annotations

import streamlit as st

from curator.compare import diff as comparison
from curator.compare.plots import length_plot, score_plot
from curator.compare.stats import Distribution, LengthStats
from curator.compare.text import CHOOSER_NOTE, verdict
from curator.compare.values import Diff, ScoreShift
from curator.store.store import Store
from curator.store.versions import ACTIONS, Version
from ui.shared import context, parts, plots
from ui.views.compare import blind
from ui.views.compare import parts as compare_parts
from ui.views.compare.parts import NONE, number, share

_KEPT_COMPARISONS = 8
_KEPT_SEC = 600
_PLOT_PX = 720
_NUM_EXAMPLES = 12
_GALLERIES = {
    "Largest gains": "Samples whose score rose most.",
    "Largest losses": "Samples whose score fell most.",
    "At random": "A random sample of the changed samples.",
}


def page() -> None:
    """Draw the page."""
    compare_parts.style()
    parts.heading("Compare", "What changed between two versions, and whether it is better")
    if len(context.workspace().store.numbers()) == 1:
        parts.empty(
            "There is only one version yet",
            "Make another with `curator decide DATASET --policy NAME` or on the page Policy.",
        )
        return
    left, right = st.columns(2)
    with left:
        old = context.version("old", "Older version", default=-2)
    with right:
        new = context.version("v", "Newer version")
    if old.id == new.id:
        parts.empty("Both versions are the same", "Choose two different versions above.")
        return
    sections = {
        "Numbers": _numbers,
        "Gains and losses": _examples,
        "Blind rating": blind.show,
    }
    tabs = st.tabs(list(sections), key="tab", bind="query-params")
    for tab, show in zip(tabs, sections.values(), strict=True):
        if tab.open:
            with tab:
                show(old, new)


def _compare(old: Version, new: Version) -> Diff:
    store = context.workspace().store
    size = max(old.num_samples, new.num_samples)
    with st.spinner(f"Comparing {size:,} samples of {old.name} and {new.name}", show_time=True):
        found: Diff = _compared(str(store.root), old.id, new.id, store, (old, new))
    return found


@st.cache_data(max_entries=_KEPT_COMPARISONS, ttl=_KEPT_SEC, show_spinner=False)
def _compared(  # the first three are the key: what starts with _ is not
    root: str,
    old_id: str,
    new_id: str,
    _store: Store,
    _versions: tuple[Version, Version],
) -> Diff:
    return comparison.diff(_store, *_versions, num_examples=_NUM_EXAMPLES)


# -- numbers -------------------------------------------------------------------------------------


def _numbers(old: Version, new: Version) -> None:
    diff = _compare(old, new)
    chooser = diff.scores is not None and diff.scores.is_chooser
    compare_parts.lead(verdict(diff), CHOOSER_NOTE if chooser else "")
    _figures(diff)
    _samples(diff)
    _scores(diff)
    _lengths(diff)
    _vocabulary(diff)
    _names(diff)


def _figures(diff: Diff) -> None:
    changed = sum(diff.num_changed.values())
    scores = diff.scores
    means = (scores.old.mean, scores.new.mean) if scores else (None, None)
    values = {
        "samples changed": share(changed, diff.num_common),
        "mean score": number(means[1]),
        "words per text": number(diff.new_lengths.mean, 1),
        "names and numbers missing": share(diff.new_names.share),
    }
    about = {
        "samples changed": f"{changed:,} of {diff.num_common:,}",
        "mean score": f"was {number(means[0])}",
        "words per text": f"was {number(diff.old_lengths.mean, 1)}",
        "names and numbers missing": f"was {share(diff.old_names.share)}",
    }
    parts.metrics(values, about=about)


def _samples(diff: Diff) -> None:
    parts.section("Outcome of the samples")
    chart, table = st.columns([1.6, 1], gap="large")
    with chart:
        st.html(plots.flows_html(diff.transitions))
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in diff.num_changed.items() if count)
        lines = [f"In both versions: {diff.num_common:,}, unchanged: {diff.num_unchanged:,}"]
        lines[0] += f", {kinds}." if kinds else "."
        if diff.only_old or diff.only_new:
            lines.append(
                f"Only in {diff.old.name} {diff.only_old:,}, only in {diff.new.name}"
                f" {diff.only_new:,}."
            )
        if diff.shards_changed:
            lines.append(f"Shards whose bytes changed: {len(diff.shards_changed):,}.")
        compare_parts.note(" ".join(lines))
    with table:
        old, new = diff.old, diff.new
        rows = [
            (action, f"{old.counts[action]:,}", f"{new.counts[action]:,}") for action in ACTIONS
        ]
        rows.append(("texts", f"{old.num_texts:,}", f"{new.num_texts:,}"))
        rows += [
            (
                f"by {compare_parts.source_name(source)}",
                f"{old.sources.get(source, 0):,}",
                f"{new.sources.get(source, 0):,}",
            )
            for source in dict.fromkeys((*old.sources, *new.sources))
        ]
        compare_parts.table(("samples", old.name, new.name), rows)


def _scores(diff: Diff) -> None:
    scores = diff.scores
    if scores is None or not scores.old.n + scores.new.n:
        parts.section("How well texts fit their images")
        parts.empty("No scores yet", "`curator score DATASET` scores every text.")
        return
    parts.section("How well texts fit their images", f"by {scores.scorer}; dashed lines are means")
    chart, table = st.columns([1.6, 1], gap="large")
    with chart:
        _versions_key(diff)
        plots.svg(score_plot(scores), "scores before and after", width_px=_PLOT_PX)
    with table:
        compare_parts.table(("scores", diff.old.name, diff.new.name), _score_rows(scores))
        paired = scores.paired
        if paired.n:
            interval = (
                f" (95% interval {paired.low:+.3f} to {paired.high:+.3f})"
                if paired.low is not None and paired.high is not None
                else ""
            )
            compare_parts.note(
                f"Of {paired.n:,} reworded samples, {share(paired.improved)} score higher and "
                f"{share(paired.worse)} lower; mean change {paired.mean:+.3f}{interval}."
            )


def _versions_key(diff: Diff) -> None:
    """Draw the colour legend of the plot below."""
    st.html(
        f'<div class="cc-legend"><span><i class="cc-old"></i>{parts.escaped(diff.old.name)}</span>'
        f'<span><i class="cc-new"></i>{parts.escaped(diff.new.name)}</span></div>'
    )


def _score_rows(scores: ScoreShift) -> list[tuple[str, str, str]]:
    both = (scores.old, scores.new)

    def row(label: str, *found: str) -> tuple[str, str, str]:
        return label, found[0], found[1]

    def quartile(side: Distribution, place: int) -> str:
        return number(side.quartiles[place] if side.quartiles else None)

    rows = [row("texts with a score", *(f"{side.n:,}" for side in both))]
    if scores.old.num_unscored or scores.new.num_unscored:
        rows.append(row("without", *(f"{side.num_unscored:,}" for side in both)))
    rows.append(row("mean", *(number(side.mean) for side in both)))
    rows.append(row("standard deviation", *(number(side.sd) for side in both)))
    rows += [
        row(label, *(quartile(side, place) for side in both))
        for place, label in enumerate(("lower quartile", "median", "upper quartile"))
    ]
    return rows


def _lengths(diff: Diff) -> None:
    parts.section("Length")
    old, new = diff.old_lengths, diff.new_lengths
    chart, table = st.columns([1.6, 1], gap="large")
    with chart:
        _versions_key(diff)
        plots.svg(length_plot(old, new), "words per text before and after", width_px=_PLOT_PX)
    with table:

        def quantile(side: LengthStats, place: int) -> str:
            return str(side.quantiles[place]) if side.quantiles else NONE

        labels = ("shortest 5 %", "lower quartile", "median", "upper quartile", "longest 5 %")
        rows = [("mean", number(old.mean, 1), number(new.mean, 1))]
        rows += [
            (label, quantile(old, place), quantile(new, place))
            for place, label in enumerate(labels)
        ]
        compare_parts.table(("words per text", diff.old.name, diff.new.name), rows)


def _vocabulary(diff: Diff) -> None:
    vocabulary = diff.vocabulary
    parts.section(
        "Vocabulary",
        f"word frequencies differ by {vocabulary.jsd_bits:.3f} bits (Jensen-Shannon divergence: "
        "0 is identical, 1 is disjoint)",
    )
    listed, table = st.columns([1.6, 1], gap="large")
    old, new = vocabulary.old, vocabulary.new
    with listed:
        compare_parts.words(
            f"New words, with their counts in {diff.new.name}",
            vocabulary.gained,
            [word.new for word in vocabulary.gained],
            "no frequent word",
        )
        compare_parts.words(
            f"Lost words, with their counts in {diff.old.name}",
            vocabulary.lost,
            [word.old for word in vocabulary.lost],
            "no frequent word",
        )
        compare_parts.note(
            "Words frequent in one version and at least ten times rarer in the other."
        )
    with table:
        rows = [
            ("words in total", f"{old.num_tokens:,}", f"{new.num_tokens:,}"),
            ("distinct words", f"{old.num_distinct:,}", f"{new.num_distinct:,}"),
            ("type-token ratio", number(old.type_token, 4), number(new.type_token, 4)),
            ("distinct pairs (distinct-2)", number(old.distinct_2, 4), number(new.distinct_2, 4)),
        ]
        compare_parts.table(("vocabulary", diff.old.name, diff.new.name), rows)
        compare_parts.openers(diff)


def _names(diff: Diff) -> None:
    old, new = diff.old_names, diff.new_names
    parts.section(
        "Names and numbers",
        f"named by the alt text and missing from the texts of {diff.new.name}: "
        f"{new.lost_names:,} of {new.num_names:,} names, {new.lost_numbers:,} of "
        f"{new.num_numbers:,} numbers ({share(new.share)}; {share(old.share)} in {diff.old.name})",
    )
    if diff.lost:
        compare_parts.lost(diff.lost)


# -- examples ------------------------------------------------------------------------------------


def _examples(old: Version, new: Version) -> None:
    diff = _compare(old, new)
    chosen = st.segmented_control(
        "Which samples",
        list(_GALLERIES),
        default=next(iter(_GALLERIES)),
        required=True,
        key="show",
        bind="query-params",
        label_visibility="collapsed",
    )
    found = dict(zip(_GALLERIES, (diff.gains, diff.losses, diff.picked), strict=True))[str(chosen)]
    compare_parts.note(_GALLERIES[str(chosen)])
    if not found:
        parts.empty(
            "No sample in this list",
            "Gains and losses need scores of both texts: run `curator score DATASET`."
            if diff.scores is None
            else "Choose another list or two other versions.",
        )
    for place, change in enumerate(found):
        compare_parts.change(diff, change, place=place)


context.run(page)
